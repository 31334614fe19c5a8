"""A headless Chromium of the system, and what it must never report of a page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1280, 360


@contextmanager
def chromium() -> Iterator[Browser]:
    """Started and ended; the test is skipped where there is none."""
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium here: as root, `make servers` installs it")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """One page, with what went wrong in it so far."""

    page: Page
    problems: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, *, width: int = WIDE, scheme: str = "light") -> Window:
        """A new one, without cookies."""
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        window = cls(context.new_page())
        window.page.set_default_timeout(120_000)
        window.page.on("console", window._said)
        window.page.on("pageerror", lambda error: window.problems.append(str(error)))
        window.page.on("dialog", lambda dialog: (window.problems.append(dialog.message), dialog.dismiss()))
        return window

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.text} ({message.location.get('url', '')})")

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def close(self) -> None:
        self.page.context.close()
