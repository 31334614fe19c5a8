"""One reader for all pages: what each of them is told, and how often the fleet is looked at."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleet import settings
from fleet.core.observed import State
from fleet.operate.dashboard import following
from fleet.operate.dashboard import live as live_module
from fleet.operate.dashboard.following import FleetFollower
from fleet.operate.dashboard.live import ALL, MOST_BEHIND, Follower, Live, TooMany
from fleet.operate.local_fleet import LocalFleet, known_fleets
from fleet.state.files import write_whole
from tests.cli.conftest import Desk
from tests.worlds import but

PATIENCE = 60.0


def follower_of(name: str) -> FleetFollower:
    return FleetFollower(LocalFleet(name, settings=settings.load()))


def lively(desk: Desk, look_seconds: float = 0.05) -> Live:
    desk.fleet("apply", str(desk.manifest), "--yes")
    home = settings.load().home
    return Live(lambda: known_fleets(home), follower_of, look_seconds=look_seconds)


async def document(follower: Follower) -> dict[str, Any]:
    text = await asyncio.wait_for(follower.next(), PATIENCE)
    assert text is not None
    return json.loads(text)


async def until(follower: Follower, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while not wanted(found := await document(follower)):
        pass
    return found


def run(live: Live, story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        live.start()
        try:
            await story()
        finally:
            live.close()

    asyncio.run(whole())


def test_first_the_whole_then_what_changed(desk: Desk) -> None:
    live = lively(desk)

    async def story() -> None:
        follower = live.begin("shop")
        first = await document(follower)
        assert first["whole"]
        assert {"thumbs.0", "reports.0"} <= set(first["replicas"])
        await asyncio.to_thread(desk.fleet, "scale", "--fleet", "shop", "--live", "thumbs=2", "--yes")
        gone = await until(follower, lambda one: "thumbs.2" in one.get("replicasGone", []))
        assert "thumbs.2" not in gone.get("replicas", {})
        assert "whole" not in gone

    run(live, story)


def test_a_fleet_goes_down_and_comes_back(desk: Desk) -> None:
    live = lively(desk)

    async def story() -> None:
        follower, all_of_them = live.begin("shop"), live.begin(ALL)
        assert (await document(follower))["head"]["up"]
        assert (await document(all_of_them))["fleets"]["shop"]["up"]
        await asyncio.to_thread(desk.fleet, "down", "--fleet", "shop", "--yes")
        await until(follower, lambda one: "thumbs.0" in one.get("replicasGone", []))
        await asyncio.to_thread(desk.fleet, "apply", str(desk.manifest), "--yes")
        await until(follower, lambda one: "thumbs.0" in one.get("replicas", {}))
        await until(all_of_them, lambda one: one["fleets"].get("shop", {}).get("ready", False))

    run(live, story)


def test_many_pages_cost_one_look(desk: Desk) -> None:
    """The reader looks at its own pace, however many follow."""
    live = lively(desk, look_seconds=3600.0)
    looks = 0
    look = live.look

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    live.look = counted  # type: ignore[method-assign]

    async def story() -> None:
        followers = [live.begin("shop") for _ in range(30)]
        for follower in followers:
            assert (await document(follower))["whole"]

    run(live, story)
    assert looks < 15  # one at the start, one for those who came; a few more on a machine that is busy in between


def test_a_page_that_does_not_keep_up_is_let_go(desk: Desk) -> None:
    live = lively(desk, look_seconds=0.01)

    async def story() -> None:
        slow = live.begin("shop")
        told = [text async for text in _all_of(slow)]
        assert 0 < len(told) <= MOST_BEHIND

    async def _all_of(follower: Follower):
        while follower in live._followers:
            await asyncio.sleep(0.01)
        while (text := await asyncio.wait_for(follower.next(), PATIENCE)) is not None:
            yield text

    run(live, story)


def test_so_many_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "MOST_FOLLOWERS", 2)
    live = lively(desk)

    async def story() -> None:
        one = live.begin(ALL)
        live.begin(ALL)
        with pytest.raises(TooMany):
            live.begin(ALL)
        live.end(one)
        live.begin(ALL)

    run(live, story)


def test_the_end_is_told_to_all(desk: Desk) -> None:
    live = lively(desk)
    left: list[Follower] = []

    async def whole() -> None:
        live.start()
        left.append(live.begin("shop"))
        await document(left[0])
        live.close()
        while await asyncio.wait_for(left[0].next(), PATIENCE) is not None:
            pass

    asyncio.run(whole())


def test_between_whole_looks_only_records_are_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WHOLE_SECONDS", 1e9)
    desk.fleet("apply", str(desk.manifest), "--yes")
    follower = follower_of("shop")
    follower.look(followed=True)
    before, observe = desk.world.observe(), desk.world.observe
    desk.world.observe = lambda **_: pytest.fail("looked at everything")  # type: ignore[assignment]
    assert follower.look(followed=True) == {}
    places = LocalFleet("shop", settings=settings.load()).places
    said = {"at": time.time(), "tickSeconds": 1, "budget": 4, "squeezed": True, "steps": [], "note": ""}
    write_whole(places.controller, json.dumps({"format": 1, "look": {**said, "groups": {"thumbs": {"need": 7}}}}))
    decided = follower.look(followed=True)
    assert (decided["groups"]["thumbs"]["need"], decided["head"]["controller"]["squeezed"]) == (7, True)
    desk.world.observe = lambda **_: but(before, "thumbs.0", state=State.FAILED, pid=None)  # type: ignore[method-assign]
    LocalFleet("shop", settings=settings.load()).audit.write({"event": "something"})  # what every change does
    found = follower.look(followed=True)
    assert found["replicas"]["thumbs.0"]["state"] == "failed"
    assert found["head"]["troubled"] == 1
    desk.world.observe = observe  # type: ignore[method-assign]


def test_a_reader_that_meets_the_unexpected_goes_on(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    live = lively(desk)
    names, failures = live._names, iter([RuntimeError("unexpected")])

    def failing() -> list[str]:
        for error in failures:
            raise error
        return names()

    live._names = failing

    async def story() -> None:
        assert (await document(live.begin("shop")))["whole"]

    run(live, story)
    assert "unexpected" in caplog.text


def test_a_fleet_that_may_not_be_read_says_why(desk: Desk) -> None:
    live = lively(desk)
    home = settings.load().home
    home.chmod(0o777)

    async def story() -> None:
        one, all_of_them = live.begin("shop"), live.begin(ALL)
        assert "others can replace" in (await document(one))["head"]["problem"]
        assert "others can replace" in (await document(all_of_them))["fleets"]["shop"]["problem"]
        home.chmod(0o700)
        assert "thumbs.0" in (await document(live.begin("shop")))["replicas"]

    run(live, story)


def test_a_process_that_dies_is_seen_although_nobody_wrote_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "WHOLE_SECONDS", 1e9)
    desk.fleet("apply", str(desk.manifest), "--yes")
    before, process = desk.world.observe(), subprocess.Popen(["sleep", "1000"])
    desk.world.observe = lambda **_: but(before, "thumbs.0", pid=process.pid)  # type: ignore[method-assign]
    follower = follower_of("shop")
    follower.look(followed=True)
    assert follower.look(followed=True) == {}
    process.kill()
    process.wait()
    desk.world.observe = lambda **_: but(before, "thumbs.0", state=State.STARTING, pid=None)  # type: ignore[method-assign]
    assert follower.look(followed=True)["replicas"]["thumbs.0"]["state"] == "starting"
