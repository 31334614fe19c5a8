"""Writing and editing manifests for people."""
