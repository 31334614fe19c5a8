"""Tests of fleet.operate.controller."""
