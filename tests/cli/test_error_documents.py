"""With -o json a failure is one document too, on every verb that prints facts."""

from __future__ import annotations

import json

import pytest

from fleet.cli.parser import parser_of
from fleet.cli.verb_list import VERBS
from tests.cli.conftest import Desk


def takes_json(verb: str) -> bool:
    return any("--output" in action.option_strings for action in parser_of(VERBS[verb])._actions)


JSON_VERBS = sorted(verb for verb in VERBS if takes_json(verb))


@pytest.mark.parametrize("verb", JSON_VERBS)
def test_a_mistake_is_one_document_on_stdout(desk: Desk, verb: str) -> None:
    said = desk.fleet(verb, "word", "--no-such-flag", "-o", "json", code=64)
    error = said.json["error"]
    assert error.keys() == {"code", "message", "hint", "problems"}
    assert error["code"] == "usage_error"
    assert error["message"] in said.err


FAILURES = [
    (("plan", "nowhere.yaml"), 64, "usage_error"),
    (("wait", "--timeout", "0"), 4, "not_ready"),
    (("restart", "thumbs.99"), 64, "usage_error"),
    (("status", "--fleet", "shup"), 64, "usage_error"),
]


@pytest.mark.parametrize(("words", "code", "kind"), FAILURES)
@pytest.mark.parametrize("flag", [("-o", "json"), ("-ojson",), ("--output=json",)])
def test_every_kind_of_failure_has_its_code(
    desk: Desk, words: tuple[str, ...], code: int, kind: str, flag: tuple[str, ...]
) -> None:
    desk.fleet("apply")
    desk.world.trouble("thumbs.1")
    assert desk.fleet(*words, *flag, code=code).json["error"]["code"] == kind


def test_a_bad_manifest_lists_its_problems(desk: Desk) -> None:
    desk.manifest.write_text(desk.manifest.read_text().replace("pool: solo", "pool: sola"))
    error = desk.fleet("plan", "-o", "json", code=3).json["error"]
    assert error["code"] == "manifest_error"
    assert len(error["problems"]) == 1


def test_without_json_nothing_of_a_failure_is_on_stdout(desk: Desk) -> None:
    assert desk.fleet("plan", "nowhere.yaml", code=64).out == ""


def test_a_verb_that_printed_its_own_document_prints_no_second_one(desk: Desk) -> None:
    desk.manifest.write_text(desk.manifest.read_text().replace("pool: solo", "pool: sola"))
    assert json.loads(desk.fleet("validate", "-o", "json", code=3).out)["problems"]
