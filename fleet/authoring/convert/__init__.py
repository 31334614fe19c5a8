"""Manifests from existing configurations: one module per format, and nothing dropped without a note."""

from fleet.authoring.convert.draft import Files
from fleet.authoring.convert.importing import AUTO, KINDS, Imported, Input, import_files, import_from, kind_of

__all__ = ["AUTO", "KINDS", "Files", "Imported", "Input", "import_files", "import_from", "kind_of"]
