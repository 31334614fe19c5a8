"""Words of others in the log: they forge no line and no terminal obeys them."""

from __future__ import annotations

import json
import logging

import pytest

from fleet.core.text.format import one_line, printable
from fleet.worker.logging_setup import JsonLines, OfOthers, TextLines, set_level

FORGED = "x\n2026-01-01 00:00:00,000 INFO thumbs.0[1] all is well\x1b[2J\x9b31m\r\u202e\u2028"


def written(
    formatter: logging.Formatter, message: str, *args: object, name: str = "fleet.worker", **extra: object
) -> str:
    record = logging.LogRecord(name, logging.INFO, "f.py", 1, message, args, None)
    record.__dict__.update(extra)
    assert OfOthers().filter(record)
    return formatter.format(record)


@pytest.mark.parametrize("formatter", [TextLines("thumbs.0"), JsonLines("thumbs.0")])
def test_a_name_forges_no_line_and_no_escape(formatter: logging.Formatter) -> None:
    line = written(formatter, "task %s is unknown", FORGED)
    assert line.isprintable()
    assert "all is well" in line


@pytest.mark.parametrize("formatter", [TextLines("thumbs.0"), JsonLines("thumbs.0")])
def test_a_long_name_is_cut(formatter: logging.Formatter) -> None:
    assert len(written(formatter, "task %s is unknown", "x" * (1 << 20))) < 10_000


def test_the_level_that_is_set_already_is_not_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """To set one writes to every logger, and forked workers share the memory of all of them."""
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    asked: list[object] = []
    monkeypatch.setattr(logging.root, "setLevel", asked.append)
    set_level("INFO")
    assert asked == []
    set_level("WARNING")
    assert asked == ["WARNING"]


def test_what_a_task_logs_is_its_own() -> None:
    assert json.loads(written(JsonLines("thumbs.0"), "a\nb", name="shop.tasks"))["message"] == "a\nb"


def test_stacks_keep_their_lines_and_nothing_else() -> None:
    assert written(TextLines("thumbs.0"), "stack:\n%s", "a\nb\x1b[2J", has_lines=True).endswith("stack:\na\nb\\x1b[2J")


def test_text_is_escaped_readably() -> None:
    assert one_line("a\tb\nc\x00\x7f\u2028é日") == "a\tb\\nc\\x00\\x7f\\u2028é日"
    assert printable("a\nb\x1b") == "a\nb\\x1b"
    assert one_line("abcdef", most=4) == "abc…"
