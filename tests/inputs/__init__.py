"""Tests of fleet.inputs."""
