"""GitOps: a fleet that follows a git repository."""
