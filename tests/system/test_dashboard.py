"""The dashboard in a browser over a real fleet: every page and action, hostile names, a fleet that goes down."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator

from fleet import settings
from fleet.core.text.listen import listen_address
from fleet.operate.dashboard.access import Policy
from fleet.operate.dashboard.app import Dashboard
from fleet.operate.dashboard.page_text import TABS
from fleet.operate.dashboard.serving import DashboardServer
from tests.browser import NARROW, WIDE, Window, chromium
from tests.cli.conftest import Desk, desk
from tests.conftest import eventually
from tests.system import worlds
from tests.system.worlds import World

__all__ = ["desk"]

pytestmark = pytest.mark.system

HOSTILE = "<img src=x onerror=alert(1)>"
PAGES = (
    "/",
    "/fleets/world",
    *(f"/fleets/world/{tab}" for tab in TABS if tab != "overview"),
    "/fleets/world/replicas/quick.0",
)
GROUPS = """\
    quick: {pool: {type: threads, concurrency: 2}, replicas: 2, queues: [quick]}
    moved: {pool: solo, autoscale: {min: 1, max: 2}, queues: [moved]}
"""


@dataclass
class Site:
    """A fleet, the dashboard that shows it, and the browser of somebody who looks."""

    world: World
    url: str
    browser: Browser

    @property
    def base(self) -> str:
        return self.url.split("/login")[0]

    def window(self, *, width: int = WIDE, scheme: str = "light", path: str = "") -> Window:
        """A window of somebody who has logged in by the link that the terminal printed."""
        window = Window.open(self.browser, width=width, scheme=scheme)
        window.page.goto(self.url)
        window.page.wait_for_url(f"{self.base}/")
        if path:
            window.page.goto(self.base + path)
        return window

    def last_event(self, event: str) -> dict:
        lines = self.world.fleet("events", "--fleet", "world", "-o", "json").stdout.splitlines()
        return next(entry for line in reversed(lines) if (entry := json.loads(line))["event"] == event)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    world = worlds.make(folder)
    tasks = folder / "world_tasks.py"
    tasks.write_text(
        tasks.read_text()
        + f"\n\n@tasks.task(name={HOSTILE!r})\ndef hostile(path, number, flag):\n"
        + f"    print({HOSTILE!r} + '<script>alert(2)</script>', flush=True)\n    wait_for(path, number, flag)\n"
    )
    dashboard = None
    try:
        with chromium() as browser:
            world.write(GROUPS, more="  concurrency: 12\n")
            world.apply()
            dashboard = subprocess.Popen(
                world.command("dashboard", "--listen", "127.0.0.1:0", "--allow-actions"),
                env=world.env(),
                cwd=folder,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert dashboard.stderr is not None
            url = dashboard.stderr.readline().split()[-1]
            yield Site(world, url, browser)
    finally:
        if dashboard is not None:
            dashboard.terminate()
            dashboard.wait()
            dashboard.stderr.close()  # type: ignore[union-attr]
        world.close()
        shutil.rmtree(folder, ignore_errors=True)


def text_in(locator: Locator, wanted: str) -> None:
    """Wait until it says so."""
    eventually(lambda: wanted in locator.inner_text())


def drawn(window: Window) -> None:
    """The page has filled itself in."""
    window.page.wait_for_selector("#connection.good")
    window.page.wait_for_selector("#content > *")


# --- every page


SCREENS = [(WIDE, "light", True), (NARROW, "dark", True), (NARROW, "light", False), (WIDE, "dark", False)]


@pytest.mark.parametrize(("width", "scheme", "with_axe"), SCREENS)
def test_every_page_is_readable_and_can_be_used_by_all(site: Site, width: int, scheme: str, with_axe: bool) -> None:
    """Nothing on the console, nothing wider than the window, nothing that axe finds: once in each scheme and width."""
    window = site.window(width=width, scheme=scheme)
    axe = Axe()
    for path in PAGES:
        window.page.goto(site.base + path)
        drawn(window)
        for one in window.page.locator("summary").all():
            one.click()
        if with_axe:
            found = axe.run(window.page)
            assert found.violations_count == 0, f"{path}\n{found.generate_report()}"
        assert (path, window.overflow()) == (path, 0)
    assert window.problems == []
    window.close()


def test_the_keyboard_reaches_the_content_and_what_can_be_done(site: Site) -> None:
    window = site.window(path="/fleets/world")
    drawn(window)
    page = window.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    reached = []
    while "Scale quick" not in reached:
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent")
        )
        assert len(reached) < 60, reached
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "act-count"
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    window.close()


def test_names_of_tasks_and_lines_of_logs_are_text(site: Site) -> None:
    flag = site.world.root / "go"
    site.world.fleet(
        *("send", "--fleet", "world", HOSTILE, "--queue", "quick", "--args"),
        json.dumps([str(site.world.done_file), 1, str(flag)]),
    )
    window = site.window(path="/fleets/world/tasks")
    row = window.page.locator("tbody tr").first
    text_in(row, HOSTILE)
    replica = row.locator("a").inner_text()
    window.page.goto(f"{site.base}/fleets/world")
    group(window, "quick").locator("summary").click()
    text_in(group(window, "quick"), HOSTILE)
    window.page.goto(f"{site.base}/fleets/world/replicas/{replica}")
    text_in(window.page.locator("#content"), HOSTILE)
    window.page.click("#stacks")
    text_in(window.page.locator("#content"), "wait_for")
    window.page.goto(f"{site.base}/fleets/world/logs")
    text_in(window.page.locator(".log"), "<script>alert(2)</script>")
    flag.touch()  # its end is a line that comes while the page follows
    text_in(window.page.locator(".log"), "succeeded")
    assert window.page.locator("#content img, #content script").count() == 0
    assert window.problems == []
    window.close()


# --- one flow per action


def agree(window: Window, *, reason: str) -> str:
    """The plan as it is shown; then do it, and wait for its end."""
    page = window.page
    page.wait_for_selector("#act-do")
    shown = page.locator("dialog").inner_text()
    page.fill("#act-reason", reason)
    page.click("#act-do")
    text_in(page.locator("#act-outcome"), "done")
    page.locator("dialog button", has_text="Close").click()
    page.wait_for_selector("dialog", state="detached")
    return shown


def group(window: Window, name: str) -> Locator:
    return window.page.locator(f"section[data-group={name}]")


def test_each_action_shows_its_plan_and_is_in_the_audit(site: Site) -> None:
    window = site.window(path="/fleets/world")
    quick = group(window, "quick")
    drawn(window)

    quick.locator("[data-action=scale]").click()
    window.page.fill("#act-count", "3")
    window.page.click("dialog button[type=submit]")
    assert "quick.2" in agree(window, reason="more to do")
    text_in(quick, "3 of 3 ready")
    entry = site.last_event("scale.started")
    assert (entry["by"].endswith(" via dashboard"), entry["reason"]) == (True, "more to do")

    pids = site.world.pids()
    quick.locator("[data-action=restart]").click()
    assert "quick.0" in agree(window, reason="fresh")
    assert all(site.world.pids()[name] != pids[name] for name in ("quick.0", "quick.1", "quick.2"))

    quick.locator("[data-action=drain]").click()
    agree(window, reason="hands off")
    eventually(lambda: all(one["held"] for name, one in site.world.workers().items() if name.startswith("quick")))
    quick.locator("summary").click()
    text_in(quick, "held")
    quick.locator("[data-action=resume]").click()
    agree(window, reason="on again")
    text_in(quick, "2 of 2 ready")  # the exception of scale has ended as well

    quick.locator("[data-action=pause]").click()
    assert "the group is paused" in agree(window, reason="not now")
    text_in(quick, "paused")
    quick.locator("[data-action=resume]").click()
    agree(window, reason="now")
    text_in(quick, "2 of 2 ready")
    assert window.problems == []
    window.close()


def test_a_change_of_the_manifest_is_rolled_back(site: Site) -> None:
    text = site.world.manifest.read_text()
    site.world.manifest.write_text(text.replace("replicas: 2", "replicas: 1"))
    site.world.apply()
    window = site.window(path="/fleets/world/history")
    drawn(window)
    newest = window.page.locator("section.group").first
    newest.locator("summary").click()
    text_in(newest, "spec.groups.quick.replicas")
    window.page.locator("section.group").nth(1).locator("[data-action=rollback]").click()
    assert "quick.1" in agree(window, reason="too few")
    eventually(lambda: "quick.1" in site.world.pids())
    assert site.last_event("rollback.ended")["outcome"] == "done"
    site.world.manifest.write_text(text)
    assert window.problems == []
    window.close()


def test_a_plan_that_is_old_is_not_carried_out(site: Site) -> None:
    window = site.window(path="/fleets/world")
    drawn(window)
    group(window, "quick").locator("[data-action=scale]").click()
    window.page.fill("#act-count", "3")
    window.page.click("dialog button[type=submit]")
    window.page.wait_for_selector("#act-do")
    site.world.fleet("scale", "--fleet", "world", "--live", "quick=4", "--yes", "--no-wait")
    window.page.click("#act-do")
    text_in(window.page.locator("#act-outcome"), "exit 7")
    assert len([name for name in site.world.pids() if name.startswith("quick")]) == 4
    site.world.fleet("resume", "--fleet", "world", "quick", "--yes", "--no-wait")
    window.close()


# --- a large one


def test_two_hundred_replicas_are_one_readable_page(site: Site, desk: Desk) -> None:
    """In memory, and served by this process: what a page makes of them is the same."""
    desk.write(thumbs=200)
    desk.fleet("apply", str(desk.manifest), "--yes")
    policy = Policy(frozenset({"127.0.0.1"}), nobody="ann")
    dashboard = Dashboard(settings.load(), policy, watch_queues=False)
    with DashboardServer(dashboard, listen_address("127.0.0.1:0")) as server:
        window = Window.open(site.browser, width=NARROW)
        window.page.goto(f"http://{server.address}/fleets/shop")
        drawn(window)
        thumbs = group(window, "thumbs")
        text_in(thumbs, "200 of 200 ready")
        thumbs.locator("summary").click()
        rows = thumbs.locator("tbody tr")
        eventually(lambda: rows.count() == 200)
        assert [rows.nth(at).locator("th").inner_text() for at in (0, 9, 10, 199)] == [
            f"thumbs.{number}" for number in (0, 9, 10, 199)
        ]
        desk.fleet("scale", "--fleet", "shop", "--live", "thumbs=150", "--yes")
        eventually(lambda: rows.count() == 150)
        assert (window.overflow(), window.problems) == (0, [])
        window.close()


# --- the last of them: it takes the fleet down


def test_a_fleet_goes_down_and_comes_back_under_open_pages(site: Site) -> None:
    overview, fleets = site.window(path="/fleets/world"), site.window(path="/")
    drawn(overview)
    text_in(group(overview, "quick"), "2 of 2 ready")
    site.world.fleet("down", "--fleet", "world", "--yes")
    text_in(overview.page.locator("#content"), "Nothing runs")
    text_in(fleets.page.locator("tbody"), "down")
    site.world.apply("--yes")
    text_in(group(overview, "quick"), "2 of 2 ready")
    text_in(fleets.page.locator("tbody"), "ready")
    assert overview.problems + fleets.problems == []
    overview.close()
    fleets.close()
