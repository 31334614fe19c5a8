"""A load against a manifest, without processes and without waiting."""
