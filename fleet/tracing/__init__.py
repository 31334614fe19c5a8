"""Traces by OpenTelemetry: what sends put into their messages, and where spans go. Nothing is imported while it is off."""
