"""The web pages of fleets: what they show is read from files, and what they do is done by a verb of its own process."""
