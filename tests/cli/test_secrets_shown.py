"""Values that a manifest holds or reads: no verb prints them."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk

VERBS = (
    "plan",
    "plan -o json",
    "diff",
    "apply --yes",
    "explain",
    "render",
    "history",
    "events",
    "events -o json",
    "status -o json",
)


@pytest.mark.parametrize("password", ["hunter2", "hunt/er2", "hun@ter2", "hun#ter2", "hun?ter2", "hun;ter2"])
def test_neither_a_variable_nor_a_password_of_the_broker_is_printed(desk: Desk, password: str) -> None:
    def written(word: str) -> None:
        desk.write(more=f"    more: {{pool: solo, replicas: 1, queues: [q], env: {{DB_PASSWORD: '{word}'}}}}\n")
        text = desk.manifest.read_text().replace("redis://localhost/0", f"redis://:{word}@localhost/0")
        desk.manifest.write_text(text)

    written("first-hunter2")
    desk.fleet("apply", "--yes")
    written(password)
    for line in VERBS:
        said = desk.fleet(*line.split(), code=None)
        assert password not in said.out + said.err, line
        assert "hunter2" not in said.out + said.err, line
    desk.fleet("down", "--yes")
    assert "hunter2" not in (desk.state / "audit.ndjson").read_text()


def test_validate_warns_of_a_variable_that_looks_like_a_secret(desk: Desk) -> None:
    desk.write(more="    more: {pool: solo, replicas: 1, queues: [q], env: {DB_PASSWORD: hunter2}}\n")
    said = desk.fleet("validate")
    assert "DB_PASSWORD looks like a secret" in said.out + said.err
    assert "hunter2" not in said.out + said.err
