"""Takes the pictures of the dashboard under the load of examples/04-balance: ``python -m docs.draw_dashboard``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from docs.example_load import SECOND_BURST_SECONDS, fleet_of_example, keep


def taken(url: str, during: threading.Thread) -> None:
    """Follow the fleet while the load is played; then the pictures, in the second burst."""
    path = next(found for name in ("chromium", "chromium-browser") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        wide = browser.new_page(viewport={"width": 1000, "height": 1160}, color_scheme="light")
        narrow = browser.new_page(viewport={"width": 360, "height": 1160}, color_scheme="dark")
        wide.goto(f"{url}fleets/balance")
        during.start()
        wide.wait_for_timeout(SECOND_BURST_SECONDS * 1000)
        keep(wide.screenshot(), "dashboard.png")
        narrow.goto(f"{url}fleets/balance/explain")
        narrow.wait_for_selector(".bars")
        keep(narrow.screenshot(), "dashboard-explain.png")
        browser.close()


def main() -> None:
    """Up, load, pictures, down."""
    with fleet_of_example() as (fleet, playing):
        words = [str(Path(sys.executable).parent / "fleet"), "dashboard", "--listen", "127.0.0.1:0"]
        dashboard = subprocess.Popen(words, env=fleet.env, stderr=subprocess.PIPE, text=True)
        try:
            assert dashboard.stderr is not None
            taken(dashboard.stderr.readline().split()[-1], playing)
        finally:
            dashboard.terminate()
            dashboard.wait()


if __name__ == "__main__":
    main()
