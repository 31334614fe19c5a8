"""``python -m fleet.worker.image <launch document> <digest>``: an image, as the plug-in in supervisord starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fleet.worker.patching import patch_for


def main(arguments: list[str]) -> int:
    """Serve as an image. For a green pool the process is patched before anything else is imported."""
    path, digest = Path(arguments[0]), arguments[1]
    missing = patch_for(path)
    from fleet.worker.image.server import run

    return run(path, digest, missing=missing)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the app registered for its end is its workers'
