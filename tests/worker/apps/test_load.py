"""An app that cannot be imported: what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.worker.apps.load import import_object


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\n1 / 0\n", 2), ("import os\n\ndef f(:\n", 3), ("def f():\n    raise ValueError('no')\nf()\n", 2)],
)
def test_an_error_of_the_app_names_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int
) -> None:
    name = f"theirs_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FleetError, match="cannot be imported") as caught:
        import_object(f"{name}:app")
    assert caught.value.hint == f"the error is the app's own: {tmp_path}/{name}.py, line {line}"


def test_a_module_that_is_missing_is_named_with_the_interpreter() -> None:
    with pytest.raises(FleetError) as caught:
        import_object("no_such_module_here:app")
    assert caught.value.hint.startswith("is 'no_such_module_here' installed for ")
