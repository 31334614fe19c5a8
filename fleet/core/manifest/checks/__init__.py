"""What spans several fields of a manifest."""
