"""What a page may ask for, as command lines, and what becomes of a verb that is run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.parser import parser_of
from fleet.cli.verb_list import VERBS
from fleet.errors import UsageError
from fleet.operate.dashboard import verb_runs
from fleet.operate.dashboard.actions import ACTIONS, acting_words, planning_words, stacks_words
from fleet.operate.dashboard.verb_runs import Busy, VerbRuns
from tests.cli.conftest import Desk
from tests.conftest import eventually

DIGEST = "0123456789abcdef"
TOLD: dict[str, dict[str, Any]] = {
    "count": {"group": "thumbs", "count": 3},
    "names": {"names": ["thumbs", "reports.0"]},
    "revision": {"revision": 2},
}


def asked(action: str, **more: Any) -> dict[str, Any]:
    return {"action": action, **TOLD[ACTIONS[action].takes], **more}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_a_command_line_that_the_verb_understands(action: str) -> None:
    assert action in VERBS
    for words in (planning_words("shop", asked(action)), acting_words("shop", asked(action, planDigest=DIGEST))):
        args = parser_of(VERBS[words[0]]).parse_args(words[1:])
        assert (args.fleet, args.output) == ("shop", "json")
        assert args.dry_run != args.yes
        assert args.if_plan == (DIGEST if args.yes else None)


def test_a_reason_is_one_word_of_the_command_line_whatever_it_says() -> None:
    words = acting_words("shop", asked("drain", planDigest=DIGEST, reason="--all --fleet other"))
    assert words[-1] == "--reason=--all --fleet other"
    assert parser_of(VERBS["drain"]).parse_args(words[1:]).all is False


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"action": "down"},
        {"action": "drain"},
        {"action": "drain", "names": []},
        {"action": "drain", "names": "thumbs"},
        {"action": "drain", "names": ["--all"]},
        {"action": "drain", "names": ["other.yaml"]},
        {"action": "drain", "names": ["/etc/passwd"]},
        {"action": "drain", "names": [["thumbs"]]},
        {"action": "drain", "names": ["thumbs\n"]},
        {"action": "scale", "group": "thumbs", "count": -1},
        {"action": "scale", "group": "thumbs", "count": True},
        {"action": "scale", "group": "thumbs", "count": "3"},
        {"action": "scale", "count": 3},
        {"action": "rollback", "revision": None},
        {"action": "rollback", "revision": 1.5},
    ],
)
def test_anything_else_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        planning_words("shop", wrong)
    with pytest.raises(UsageError):
        acting_words("shop", {**wrong, "planDigest": DIGEST})


@pytest.mark.parametrize("more", [{}, {"planDigest": 1}, {"planDigest": "x"}, {"planDigest": DIGEST, "reason": "\0"}])
def test_nothing_is_done_without_the_plan_that_was_shown(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        acting_words("shop", asked("drain", **more))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one, max_size=3), max_leaves=5
)


@given(st.dictionaries(st.sampled_from(["action", "names", "group", "count", "revision", "planDigest", "reason"]), ANY))
def test_no_request_becomes_a_flag(document: dict[str, Any]) -> None:
    try:
        words = acting_words("shop", document)
    except UsageError:
        return
    assert all(
        not word.startswith("-") or word.split("=")[0] in {"--output", "--fleet", "--live", "--yes"} for word in words
    )


def test_stacks_are_asked_of_a_replica() -> None:
    assert stacks_words("shop", "thumbs.0")[-1] == "thumbs.0"
    with pytest.raises(UsageError):
        stacks_words("shop", "--record=/etc/passwd")


# --- running a verb


def test_a_verb_runs_with_the_name_of_who_asked(tmp_path: Path) -> None:
    async def story() -> dict[str, Any]:
        run = await VerbRuns(tmp_path).ask("shop", ["version", "-o", "json"], by="ann via dashboard")
        return run.document()

    found = asyncio.run(story())
    assert (found["code"], found["by"], found["said"]) == (0, "ann via dashboard", [])
    assert found["result"]


def test_a_refusal_is_kept_as_the_verb_says_it(tmp_path: Path) -> None:
    async def story() -> dict[str, Any]:
        return (await VerbRuns(tmp_path).ask("shop", planning_words("shop", asked("drain")), by="ann")).document()

    found = asyncio.run(story())
    assert found["code"] == 64
    assert "no fleet 'shop'" in found["result"]["error"]["message"]


def test_so_many_at_once_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb_runs, "MOST_AT_ONCE", 1)

    async def story() -> None:
        runs = VerbRuns(tmp_path)
        first = runs.begin("shop", ["version"], by="ann")
        with pytest.raises(Busy):
            runs.begin("shop", ["version"], by="ann")
        await first.ended.wait()
        await runs.begin("shop", ["version"], by="ann").ended.wait()

    asyncio.run(story())


def test_a_verb_goes_on_when_the_dashboard_is_killed(tmp_path: Path) -> None:
    """The verb here writes to both its streams long after nobody reads them."""
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    script = f"""
import asyncio, sys
from pathlib import Path
from fleet.operate.dashboard import verb_runs
class Python:
    executable = {str(tmp_path / "python")!r}
verb_runs.sys = Python
async def story():
    run = verb_runs.VerbRuns(Path({str(tmp_path)!r})).begin("shop", ["drain"], by="ann")
    print(run._process.pid, flush=True)
    await run.ended.wait()
asyncio.run(story())
"""
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/sh\nread line <"{gate}"\necho out\necho err >&2\nprintf "%s" "$FLEET_ON_BEHALF_OF" >"{done}"\n'
    )
    fake.chmod(0o700)
    dashboard = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert dashboard.stdout is not None
    assert int(dashboard.stdout.readline()) > 0
    dashboard.send_signal(signal.SIGKILL)
    dashboard.wait()
    dashboard.stdout.close()
    gate.write_text("go\n")
    eventually(lambda: done.exists() and done.read_text() == "ann")


# --- the plan that was shown, and no other


def test_another_plan_is_not_carried_out(desk: Desk) -> None:
    desk.fleet("apply", str(desk.manifest), "--yes")
    words = ("scale", "--fleet", "shop", "--live", "thumbs=2", "-o", "json")
    digest = desk.fleet(*words, "--dry-run").json["planDigest"]
    assert digest == desk.fleet(*words, "--dry-run").json["planDigest"]
    desk.fleet("scale", "--fleet", "shop", "--live", "thumbs=1", "--yes")
    before = desk.pids()
    refused = desk.fleet(*words, "--yes", "--if-plan", digest, code=7)
    assert "not the one that was asked for" in json.loads(refused.out)["error"]["message"]
    assert desk.pids() == before
    desk.fleet("scale", "--fleet", "shop", "--live", "thumbs=3", "--yes")
    desk.fleet(*words, "--yes", "--if-plan", digest)
    assert set(desk.pids()) - set(before) == {"thumbs.1"}


def test_the_audit_names_the_person_behind_the_process(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fleet("apply", str(desk.manifest), "--yes")
    monkeypatch.setenv("FLEET_ON_BEHALF_OF", "ann via dashboard")
    desk.fleet("drain", "--fleet", "shop", "thumbs", "--yes")
    last = json.loads(desk.fleet("events", "--fleet", "shop", "-n", "1", "-o", "json").out)
    assert (last["event"], last["by"]) == ("drain.ended", "ann via dashboard")
