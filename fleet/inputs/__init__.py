"""What this machine adds to a manifest: files, facts, secrets."""
