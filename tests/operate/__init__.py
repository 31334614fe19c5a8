"""Tests of fleet.operate."""
