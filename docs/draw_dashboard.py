"""Takes the pictures of the dashboard under the load of examples/04-balance: ``python -m docs.draw_dashboard``."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "04-balance"
PICTURES = ROOT / "docs" / "pictures"
COLOURS = 48
CALM_SECONDS, BURST_SECONDS = 40, 50


def example() -> Any:
    """The load of the example, as a module."""
    found = importlib.util.spec_from_file_location("load", EXAMPLE / "load.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["load"] = module
    sys.path.insert(0, str(EXAMPLE))
    found.loader.exec_module(module)
    return module


def taken(url: str, during: threading.Thread) -> None:
    """Follow the fleet while the load is played; then the pictures, in the second burst."""
    path = next(found for name in ("chromium", "chromium-browser") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        wide = browser.new_page(viewport={"width": 1000, "height": 1160}, color_scheme="light")
        narrow = browser.new_page(viewport={"width": 360, "height": 1160}, color_scheme="dark")
        wide.goto(f"{url}fleets/balance")
        during.start()
        wide.wait_for_timeout((2 * CALM_SECONDS + 1.7 * BURST_SECONDS) * 1000)
        keep(wide.screenshot(), "dashboard.png")
        narrow.goto(f"{url}fleets/balance/explain")
        narrow.wait_for_selector(".bars")
        keep(narrow.screenshot(), "dashboard-explain.png")
        browser.close()


def keep(shot: bytes, name: str) -> None:
    """Small: few colours."""
    PICTURES.mkdir(exist_ok=True)
    image = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(PICTURES / name, optimize=True)
    print(f"{PICTURES / name}: {(PICTURES / name).stat().st_size // 1024} KiB")


def main() -> None:
    """Up, load, pictures, down."""
    load = example()
    calm, burst = load.Phase(CALM_SECONDS), BURST_SECONDS
    phases = (calm, load.Phase(burst, "gevent", 32), calm, load.Phase(burst, "solo", 24))
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        fleet = load.Fleet(folder)
        fleet.run("apply", load.MANIFEST, "--yes")
        words = [load.FLEET, "dashboard", "--listen", "127.0.0.1:0"]
        dashboard = subprocess.Popen(words, env=fleet.env, stderr=subprocess.PIPE, text=True)
        try:
            assert dashboard.stderr is not None
            url = dashboard.stderr.readline().split()[-1]
            playing = threading.Thread(target=load.Load(fleet).play, args=(phases,), daemon=True)
            taken(url, playing)
            playing.join()
        finally:
            dashboard.terminate()
            dashboard.wait()
            fleet.run("down", load.MANIFEST, "--yes")


if __name__ == "__main__":
    main()
