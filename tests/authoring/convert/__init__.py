"""Tests of fleet.authoring."""
