"""`fleet rollout`: a rollout that goes on, one whose process is gone, and the ways on and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Replica
from fleet.core.observed import Observed
from fleet.operate.rollout import last_walk
from fleet.state import rollout_orders
from fleet.state.paths import Places
from fleet.state.rollout_orders import NO_ORDERS, RolloutOrders
from tests.cli.conftest import Desk


class Killed(BaseException):
    """Ends a process in the middle, as SIGKILL does: nothing is written any more."""


@pytest.fixture
def cut_short(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Revision 1 is good; the process that applied revision 2 is gone before its end."""
    desk.fleet("apply", "-y", "fleet.yaml")
    desk.write(thumbs=5)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MemoryBackend, "start", killed)
        patched.setattr("fleet.operate.change._Records.ended", lambda *_, **__: None)
        with pytest.raises(Killed):
            desk.fleet("apply", "-y", "fleet.yaml")
    return desk


def state(desk: Desk) -> tuple[str, int, int]:
    document = desk.fleet("rollout", "status", "-o", "json").json
    return document["state"], document["revision"], document["goodRevision"]


def test_a_fleet_that_was_never_applied_has_none(desk: Desk) -> None:
    assert state(desk) == ("none", 0, 0)
    assert "no rollout" in desk.fleet("rollout", "status").out


def test_one_that_is_done_can_only_be_looked_at(desk: Desk) -> None:
    desk.fleet("apply", "-y", "fleet.yaml")
    assert state(desk) == ("complete", 1, 1)
    desk.fleet("rollout", "status", "--exit-code")
    for action in ("pause", "resume", "promote", "abort"):
        said = desk.fleet("rollout", action, code=64)
        assert "rollout is complete" in said.err or "compares no canary" in said.err


def test_one_whose_process_is_gone_says_so_and_what_to_do(cut_short: Desk) -> None:
    said = cut_short.fleet("rollout", "status", "--exit-code", code=6)
    assert "fleet shop, revision 2: interrupted" in said.out
    assert "its process ended in the middle" in said.out
    assert "fleet rollout resume: do the rest of revision 2" in said.out
    assert "fleet rollout abort: go back to revision 1" in said.out
    assert "no rollout to pause" in cut_short.fleet("rollout", "pause", code=64).err


def test_resume_does_the_rest(cut_short: Desk) -> None:
    cut_short.fleet("rollout", "resume", "-y")
    assert state(cut_short) == ("complete", 2, 2)
    assert sum(name.startswith("thumbs.") for name in cut_short.pids()) == 5


def test_abort_goes_back_and_marks_what_was_aborted(cut_short: Desk) -> None:
    cut_short.fleet("rollout", "abort", "-y", "--reason", "too slow")
    assert state(cut_short) == ("complete", 3, 3)
    assert sum(name.startswith("thumbs.") for name in cut_short.pids()) == 3
    rows = cut_short.fleet("history", "-o", "json").json["revisions"]
    assert [row["outcome"] for row in rows] == ["good", "failed", "good"]
    assert "too slow" in cut_short.fleet("apply", "-y", "fleet.yaml", code=9).err, "not again by mistake"


def test_a_dry_run_of_abort_changes_nothing(cut_short: Desk) -> None:
    cut_short.fleet("rollout", "abort", "--dry-run")
    assert state(cut_short) == ("interrupted", 2, 1)


def test_the_first_rollout_has_nowhere_to_go_back_to(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MemoryBackend, "start", killed)
        with pytest.raises(Killed):
            desk.fleet("apply", "-y", "fleet.yaml")
    assert state(desk) == ("interrupted", 1, 0)
    assert "no other good revision" in desk.fleet("rollout", "abort", "-y", code=64).err


def test_abort_of_one_that_goes_on_makes_its_process_go_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is given from another thread, as another process would: by a file."""
    desk.fleet("apply", "-y", "fleet.yaml")
    desk.write(thumbs=5)
    start: Callable[..., None] = MemoryBackend.start
    places, seen = Places(desk.state.parent), []

    def slow(self: MemoryBackend, replicas: Sequence[Replica], **more: Any) -> None:
        if not seen:
            seen.append(state(desk))
            seen.append(state_after("pause"))
            rollout_orders.write(
                places.rollout_orders, RolloutOrders(pid=os.getpid(), aborted=True, by="ann", reason="too slow")
            )
        start(self, replicas, **more)

    def state_after(action: str) -> tuple[str, int, int]:
        desk.fleet("rollout", action, "--reason", "look first")
        return state(desk)

    monkeypatch.setattr(MemoryBackend, "start", slow)
    said = desk.fleet("apply", "-y", "fleet.yaml", code=5)

    assert seen == [("progressing", 2, 1), ("paused", 2, 1)]
    assert "aborted by ann: too slow; it was rolled back to revision 1" in said.err
    assert state(desk) == ("complete", 3, 3)
    assert sum(name.startswith("thumbs.") for name in desk.pids()) == 3


def test_orders_for_another_process_or_damaged_ones_order_nothing(desk: Desk) -> None:
    path = desk.folder / "rollout.json"
    assert rollout_orders.read(path, pid=1) == NO_ORDERS
    orders = RolloutOrders(pid=1, paused=True, by="ann")
    rollout_orders.write(path, orders)
    assert rollout_orders.read(path, pid=1) == orders
    assert rollout_orders.read(path, pid=2) == NO_ORDERS
    for text in ("", "{", "[]", '{"pid": "x"}', "null"):
        path.write_text(text)
        assert rollout_orders.read(path, pid=1) == NO_ORDERS, text


def test_a_mistyped_action_is_guessed(desk: Desk) -> None:
    assert "did you mean 'status'" in desk.fleet("rollout", "statsu", code=64).err


def test_the_audit_tells_how_far_a_canary_got() -> None:
    first = {"event": "apply.started", "at": 1.0, "pid": 7, "by": "ann", "revision": 2, "good": 1, "steps": [[], []]}
    other = {"event": "step.done", "at": 2.0, "pid": 8, "step": "start b.0"}
    begun = {"event": "step.started", "at": 2.0, "pid": 7, "step": "replace a.0"}
    compared = {"event": "step.compared", "at": 3.0, "pid": 7, "step": "replace a.0", "reason": "canary"}
    judged = {"event": "step.judged", "at": 4.0, "pid": 7, "step": "replace a.0", "reason": "no worse"}
    done = {"event": "step.done", "at": 4.0, "pid": 7, "step": "replace a.0"}

    assert last_walk([{"event": "restart.started", "at": 0.0, "steps": []}]) is None, "it deploys nothing"
    comparing = last_walk([first, begun, other, compared])
    assert comparing is not None
    assert (comparing.comparing, comparing.under_way, comparing.done) == ("replace a.0", ("replace a.0",), 0)
    after = last_walk([first, begun, compared, judged, done])
    assert after is not None
    assert (after.comparing, after.under_way, after.done, after.verdicts) == ("", (), 1, ("no worse",))


def test_status_tells_which_step_of_a_canary_is_compared(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = "{steps: [{percent: 25, for: 1h}, {percent: 50}]}"
    rollout = f"rollout: {{maxSurge: 0, maxUnavailable: 1, canary: {steps}}}, queues: [thumbs]"

    def write(version: int) -> None:
        desk.write(thumbs=4)
        text = desk.manifest.read_text().replace("queues: [thumbs]", f"{rollout}, env: {{V: '{version}'}}")
        desk.manifest.write_text(text)

    write(1)
    desk.fleet("apply", "-y", "fleet.yaml")
    write(2)
    seen: list[tuple[str, Any]] = []
    observe: Callable[[MemoryBackend], Observed] = MemoryBackend.observe
    places = Places(desk.state.parent)

    def look(self: MemoryBackend, **_: bool) -> Observed:
        """At the first comparison somebody looks, and promotes it."""
        events = (desk.state / "audit.ndjson").read_text()
        if "step.compared" in events and not seen:
            seen.append((desk.folder.name, None))
            seen[0] = (
                desk.fleet("rollout", "status", "--fleet", "shop").out,
                desk.fleet("rollout", "status", "--fleet", "shop", "-o", "json").json["walk"]["comparison"],
            )
            orders = RolloutOrders(pid=os.getpid(), promoted=True, by="ann", reason="seen enough")
            rollout_orders.write(places.rollout_orders, orders)
        return observe(self)

    monkeypatch.setattr(MemoryBackend, "observe", look)
    desk.fleet("apply", "-y", "fleet.yaml")

    ((text, comparison),) = seen
    assert "canary step 1 of 2: replace thumbs.0 is compared with the old replicas" in text
    assert comparison == {"kind": "canary", "step": 1, "steps": 2}
    verdicts = desk.fleet("rollout", "status", "--fleet", "shop", "-o", "json").json["walk"]["verdicts"]
    assert verdicts == [f"canary step {n} of 2, not judged: promoted by ann: seen enough" for n in (1, 2)]
