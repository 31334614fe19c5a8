"""Tests of fleet.operate.apply."""
