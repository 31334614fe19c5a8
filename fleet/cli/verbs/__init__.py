"""What each verb does: its flags, and one short function."""
