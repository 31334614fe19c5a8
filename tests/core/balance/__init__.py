"""Tests of fleet.core.balance."""
