"""The FLEET_* settings: read once, and refused in words where they do not hold what they must."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from unittest import mock

import pytest

from fleet import settings
from fleet.environment import Environment
from fleet.errors import UsageError
from fleet.replica.log_rotation import USUAL_BYTES, limit_bytes_in
from fleet.settings import Settings
from fleet.state.paths import default_home

ROOT = Path(__file__).parent.parent
GIVEN = {
    "home": ("/srv/fleets", Path("/srv/fleets")),
    "rpc_timeout_seconds": ("1.5", 1.5),
    "ready_timeout_seconds": ("90", 90.0),
    "max_replicas": ("7", 7),
    "no_exec": ("yes", True),
    "redis_server": ("/opt/valkey-server", "/opt/valkey-server"),
    "image_answer_seconds": ("2", 2.0),
    "log_bytes": ("65536", 65536),
    "stall_seconds": ("4", 4.0),
}
WRONG = {
    "a number of seconds above 0": ("soon", "0", "-1", "nan", "inf", "1s"),
    "a whole number above 0": ("many", "0", "-5", "1.5", "٣", "9" * 30),
    "yes or no": ("perhaps", "2"),
}
OF_KIND = {float: "a number of seconds above 0", int: "a whole number above 0", bool: "yes or no"}
CASES = [
    (f"FLEET_{name.upper()}", text, kind)
    for name, (_, value) in GIVEN.items()
    if (kind := OF_KIND.get(type(value), ""))
    for text in WRONG[kind]
]


def read(variables: Mapping[str, str]) -> Settings:
    """As a process with these FLEET_* variables and no others reads them."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    with mock.patch.dict(os.environ, {**others, **variables}, clear=True):
        return settings.load.__wrapped__()


def test_every_setting_is_read_from_its_variable() -> None:
    assert GIVEN.keys() == {one.name for one in fields(Settings)} == set(Environment.model_fields)
    found = read({f"FLEET_{name.upper()}": text for name, (text, _) in GIVEN.items()})
    assert {name: getattr(found, name) for name in GIVEN} == {name: value for name, (_, value) in GIVEN.items()}


@pytest.mark.parametrize("name", GIVEN)
def test_an_empty_variable_is_not_set(name: str) -> None:
    assert read({f"FLEET_{name.upper()}": ""}) == Settings()


def test_what_is_not_set_has_its_default_and_other_variables_are_nobodys_business() -> None:
    assert read({"FLEET_BROKER_URL": "redis://", "HOME": "/x"}) == Settings()
    assert Settings().home == default_home()
    assert Settings().log_bytes == USUAL_BYTES


@pytest.mark.parametrize(("text", "value"), [("", False), ("0", False), ("No", False), ("off", False), ("TRUE", True)])
def test_yes_and_no_have_several_words(text: str, value: bool) -> None:
    assert read({"FLEET_NO_EXEC": text}).no_exec is value


@pytest.mark.parametrize(("variable", "text", "kind"), CASES)
def test_a_value_that_does_not_fit_is_refused_with_its_variable(variable: str, text: str, kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        read({variable: text})
    assert caught.value.message.startswith(f"the environment variable {variable}: expected {kind}, got ")
    assert caught.value.hint.startswith("write ")


@pytest.mark.parametrize("verb", ["validate", "plan", "status", "apply"])
def test_a_command_says_so_before_it_does_anything(verb: str, tmp_path: Path) -> None:
    environ = {**os.environ, "FLEET_HOME": str(tmp_path / "home"), "FLEET_IMAGE_ANSWER_SECONDS": "soon"}
    command = [sys.executable, "-m", "fleet", verb, str(ROOT / "manifests" / "quickstart.yaml")]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.splitlines() == [
        "fleet: the environment variable FLEET_IMAGE_ANSWER_SECONDS: expected a number of seconds above 0, got 'soon'",
        "  hint: write it like 30 or 0.5",
    ]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1.5", "٣"])
def test_a_replica_keeps_its_log_within_the_usual_bound_where_the_variable_is_no_number(text: str) -> None:
    assert limit_bytes_in({"FLEET_LOG_BYTES": text}) == USUAL_BYTES
    assert limit_bytes_in({"FLEET_LOG_BYTES": "4096"}) == 4096
