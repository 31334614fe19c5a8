"""The files of one fleet."""
