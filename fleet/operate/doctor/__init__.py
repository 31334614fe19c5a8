"""Looks for what is wrong with a fleet, and puts right what is safe to put right."""
