"""The text of a manifest, read, merged and checked."""
