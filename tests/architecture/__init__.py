"""The form of the source: who may import whom, what is pure, and the page that says so."""
