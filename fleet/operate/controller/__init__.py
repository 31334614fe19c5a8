"""The loop that moves slots between groups."""
