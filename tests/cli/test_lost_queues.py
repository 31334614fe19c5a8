"""plan and apply warn of a queue that loses its last consumer while tasks wait in it."""

from __future__ import annotations

import pytest

from fleet.broker.publisher import Outgoing, Publisher
from fleet.inputs import facts
from tests.cli.conftest import Desk
from tests.servers import free_port


@pytest.fixture
def without_reports(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """``reports`` runs, and the manifest holds it at zero."""
    monkeypatch.setattr(facts, "probe", lambda _app, **_where: {"transportOptions": {}})
    return desk


def held(desk: Desk, url: str) -> None:
    desk.write()
    text = desk.manifest.read_text().replace("redis://localhost/0", url).replace("[reports]", "[lost-reports]")
    desk.manifest.write_text(text)
    desk.fleet("apply", "-y", "fleet.yaml")
    desk.manifest.write_text(text.replace("replicas: 1   # one", "replicas: 0   # one"))


@pytest.mark.system
def test_tasks_that_wait_are_counted(without_reports: Desk, redis_url: str) -> None:
    held(without_reports, redis_url)
    assert "warning" not in without_reports.fleet("plan", "fleet.yaml").out, "nothing waits"
    with Publisher(redis_url) as publisher:
        publisher.send_many(Outgoing("lost-reports", "1") for _ in range(3))

    expected = "queue 'lost-reports' loses its last consumer (reports) while 3 tasks wait in it"
    assert f"warning: {expected}" in without_reports.fleet("plan", "fleet.yaml").out
    assert without_reports.fleet("plan", "fleet.yaml", "-o", "json").json["warnings"] == [expected]
    assert f"warning: {expected}" in without_reports.fleet("apply", "-y", "fleet.yaml").out
    assert "warning" not in without_reports.fleet("plan", "fleet.yaml").out, "it is lost already"


def test_a_broker_that_does_not_answer_stops_no_plan(without_reports: Desk) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    held(without_reports, url)

    said = without_reports.fleet("plan", "fleet.yaml").out

    assert (
        "warning: queue 'lost-reports' loses its last consumer (reports); the tasks that wait in it could not be"
        in said
    )
    assert f"the broker {url} does not answer" in said
    assert without_reports.fleet("apply", "-y", "fleet.yaml").code == 0


def test_what_only_stops_asks_no_broker(without_reports: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held(without_reports, f"redis://127.0.0.1:{free_port()}/0")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("no app is asked")

    monkeypatch.setattr(facts, "probe", refused)
    assert "warning" not in without_reports.fleet("pause", "thumbs", "--fleet", "shop", "-y").out


def test_validate_says_which_queues_nothing_takes_from(desk: Desk) -> None:
    desk.write()
    desk.manifest.write_text(desk.manifest.read_text().replace("replicas: 1   # one", "replicas: 0   # one"))

    said = desk.fleet("validate", "fleet.yaml").err

    assert "nothing takes from queue 'reports': reports is held at zero replicas" in said
