"""Traces by OpenTelemetry: what sends put into their messages, and where spans go. While it is off, nothing loads."""
