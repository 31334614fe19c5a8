"""The load of examples/04-balance, for those who take pictures of a fleet that has to do."""

from __future__ import annotations

import importlib.util
import io
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "04-balance"
PICTURES = ROOT / "docs" / "pictures"
COLOURS = 48
CALM_SECONDS, BURST_SECONDS = 40, 50
SECOND_BURST_SECONDS = 2 * CALM_SECONDS + 1.7 * BURST_SECONDS
"""From the first task to the middle of the second burst, when the pictures are taken."""


@contextmanager
def fleet_of_example() -> Iterator[tuple[Any, threading.Thread]]:
    """The example's fleet, applied, and a thread that plays its load when it is started; taken down at the end."""
    load = _module()
    calm, burst = load.Phase(CALM_SECONDS), BURST_SECONDS
    phases = (calm, load.Phase(burst, "gevent", 32), calm, load.Phase(burst, "solo", 24))
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        fleet = load.Fleet(folder)
        fleet.run("apply", load.MANIFEST, "--yes")
        try:
            playing = threading.Thread(target=load.Load(fleet).play, args=(phases,), daemon=True)
            yield fleet, playing
            playing.join()
        finally:
            fleet.run("down", load.MANIFEST, "--yes")


def keep(picture: bytes, name: str) -> None:
    """A PNG, made small: few colours."""
    PICTURES.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(PICTURES / name, optimize=True)
    print(f"{PICTURES / name}: {(PICTURES / name).stat().st_size // 1024} KiB")


def _module() -> Any:
    found = importlib.util.spec_from_file_location("load", EXAMPLE / "load.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["load"] = module
    sys.path.insert(0, str(EXAMPLE))
    found.loader.exec_module(module)
    return module
