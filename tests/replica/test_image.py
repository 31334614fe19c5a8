"""Which replicas share an image, and what an image says of itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.core.spec import BrokerSpec, PoolSpec, QueueSpec, WorkerSpec, digest
from fleet.replica.image import ImageFiles, ImageState, key_of, read_state, stamps, states, write_state
from fleet.replica.launch_document import LaunchDocument

SPEC = WorkerSpec("worker", "shop", "thumbs", app="shop:app", workdir="/srv/shop", python="/usr/bin/python3")


def document(spec: WorkerSpec, *, replica: str = "thumbs.0", **secrets: str) -> LaunchDocument:
    path = Path("/run/shop/run/specs") / f"{replica}.json"
    return LaunchDocument(path, "shop", replica, digest(spec), spec, secrets)


@pytest.mark.parametrize(
    "same",
    [
        replace(SPEC, group="other"),
        replace(SPEC, pool=PoolSpec("threads", 4)),
        replace(SPEC, pool=PoolSpec("prefork", 4)),
        replace(SPEC, pool=PoolSpec("asyncio", 4)),
        replace(SPEC, queues=(QueueSpec("q"),)),
        replace(SPEC, log_level="DEBUG", drain_timeout_seconds=1.0),
    ],
)
def test_what_no_import_can_see_shares_an_image(same: WorkerSpec) -> None:
    assert key_of(document(same, replica=f"{same.group}.3")) == key_of(document(SPEC)) != ""


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, app="shop:other"),
        replace(SPEC, workdir="/srv/next"),
        replace(SPEC, python="/usr/bin/python3.13"),
        replace(SPEC, revision="2"),
        replace(SPEC, code="abc"),
        replace(SPEC, env=(("TZ", "UTC"),)),
        replace(SPEC, broker=BrokerSpec("redis://other/0")),
        replace(SPEC, merge_memory=True),
        replace(SPEC, pool=PoolSpec("gevent", 4)),
    ],
)
def test_what_an_import_may_see_or_a_fork_inherits_needs_an_image_of_its_own(other: WorkerSpec) -> None:
    assert key_of(document(other)) not in ("", key_of(document(SPEC)))


def test_the_value_of_a_secret_is_part_of_the_environment() -> None:
    spec = replace(SPEC, secret_env=(("TOKEN", "token", "mark"),))
    assert key_of(document(spec, token="a")) != key_of(document(spec, token="b"))


@pytest.mark.parametrize(
    "cold",
    [
        replace(SPEC, image="off"),
        replace(SPEC, pool=PoolSpec("eventlet", 2)),
        replace(SPEC, pool=PoolSpec("custom", 2, "shop.pools:Own")),
        replace(SPEC, kind="celery"),
        replace(SPEC, kind="command", command=("true",)),
        replace(SPEC, secret_env=(("TOKEN", "missing", "mark"),)),
    ],
)
def test_these_start_without_an_image(cold: WorkerSpec) -> None:
    assert key_of(document(cold)) == ""


def test_whether_it_is_used_forces_no_restart() -> None:
    assert digest(replace(SPEC, image="off")) == digest(SPEC)


def test_a_state_is_read_back_and_lives_as_long_as_its_process(tmp_path: Path) -> None:
    read = tmp_path / "read.py"
    read.write_text("1")
    (tmp_path / "images").mkdir()
    files = ImageFiles(tmp_path / "images", "0a0a0a0a")
    said = ImageState("0a0a0a0a", os.getpid(), "ready", "shop:app", files=stamps([str(read), str(tmp_path / "no")]))
    write_state(files, said)
    state = read_state(files)
    assert state is not None
    assert replace(state, ticks=0) == said
    assert states(files.folder) == (state,)
    assert state.lives
    assert state.is_current
    assert f"ready, pid {os.getpid()}" in state.shown
    assert not replace(state, ticks=state.ticks + 1).lives, "the kernel has used its pid again"


@pytest.mark.parametrize("change", [lambda one: one.write_text("22"), lambda one: one.unlink()])
def test_another_or_a_lost_file_makes_it_stale(tmp_path: Path, change: object) -> None:
    read = tmp_path / "read.py"
    read.write_text("1")
    state = ImageState("k", 1, "ready", files=stamps([str(read)]))
    assert callable(change)
    change(read)
    assert not state.is_current


def test_a_file_that_was_looked_for_in_vain_makes_it_stale(tmp_path: Path) -> None:
    state = ImageState("k", 1, "ready", files=stamps([str(tmp_path / ".env")]))
    assert state.is_current
    (tmp_path / ".env").write_text("A=1")
    assert not state.is_current


@pytest.mark.parametrize("text", ["", "[]", '{"key": 1}', '{"files": {}, "strange": 1}'])
def test_a_broken_state_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.json").write_text(text)
    assert read_state(ImageFiles(tmp_path, "k")) is None


def test_a_failed_image_says_whether_its_app_has_changed_since(tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text("import nothing\n")
    state = ImageState("k", 1, "failed", "shop:app", "ModuleNotFoundError: nothing", files=stamps([str(app)]))
    assert state.shown.endswith("(ModuleNotFoundError: nothing); workers start without it")
    app.write_text("import os, sys, json\n")
    assert state.shown.endswith("(ModuleNotFoundError: nothing); since then a file changed; the next start tries again")
