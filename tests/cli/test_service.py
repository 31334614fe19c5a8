"""`fleet service` with a systemctl that writes down what it was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.operate.service import systemd
from tests.cli.conftest import Desk

SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *show*) printf 'ActiveState=active\\nSubState=running\\nUnitFileState=enabled\\nMainPID=7\\n\
StatusText=fleet shop: up\\n';; esac
"""


class Machine:
    """Where units are, and what systemctl was asked."""

    def __init__(self, folder: Path) -> None:
        self.unit = folder / "units" / "fleet-shop.service"
        self._log = folder / "asked"
        self.program = folder / "bin" / "systemctl"
        self.program.parent.mkdir()
        self.program.write_text(SYSTEMCTL.format(log=self._log))
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def machine(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(systemd, "SYSTEM_FOLDER", made.unit.parent)
    return made


def test_install_writes_the_unit_and_starts_it_with_the_machine(desk: Desk, machine: Machine) -> None:
    said = desk.fleet("service", "install", "fleet.yaml")

    text = machine.unit.read_text()
    assert f"run {desk.manifest} --keep-going\n" in text
    assert f"Environment=FLEET_HOME={desk.folder}/home\n" in text
    assert "KillMode=mixed" in text
    assert [line.split(" ", 1)[1] for line in machine.asked()] == ["daemon-reload", "enable fleet-shop.service"]
    assert "systemctl start fleet-shop.service" in said.err
    assert desk.pids() == {}, "nothing runs before systemd starts it"


def test_the_time_limit_is_that_of_the_slowest_drain(desk: Desk, machine: Machine) -> None:
    desk.write(more="    slow: {pool: solo, replicas: 1, queues: [slow], drain: {timeout: 10m}}\n")
    desk.fleet("service", "install", "fleet.yaml", "--now")

    assert "TimeoutStopSec=645\n" in machine.unit.read_text()  # 600, supervisord's 15, and 30
    assert "--no-pager enable --now fleet-shop.service" in machine.asked()


def test_print_shows_the_unit_and_touches_nothing(desk: Desk, machine: Machine) -> None:
    document = desk.fleet("service", "install", "fleet.yaml", "--print", "-o", "json").json

    assert document["unit"] == "fleet-shop.service"
    assert "Type=notify" in document["text"]
    assert (machine.unit.exists(), machine.asked()) == (False, [])


def test_uninstall_stops_it_and_removes_the_file(desk: Desk, machine: Machine) -> None:
    desk.fleet("service", "install", "fleet.yaml")
    assert desk.fleet("service", "uninstall", "fleet.yaml", "-o", "json").json["removed"]

    assert not machine.unit.exists()
    assert "--no-pager disable --now fleet-shop.service" in machine.asked()
    assert desk.fleet("service", "uninstall", "fleet.yaml").out == "fleet-shop.service: not installed\n"


def test_a_unit_that_somebody_else_wrote_is_left_alone(desk: Desk, machine: Machine) -> None:
    machine.unit.parent.mkdir()
    machine.unit.write_text("[Unit]\n")
    for verb in ("install", "uninstall"):
        assert "was not written by fleet" in desk.fleet("service", verb, "fleet.yaml", code=1).err

    assert machine.unit.read_text() == "[Unit]\n"


def test_status_says_whether_it_is_installed_and_runs(desk: Desk, machine: Machine) -> None:
    desk.fleet("service", "install", "fleet.yaml")
    document = desk.fleet("service", "status", "fleet.yaml", "-o", "json").json

    assert (document["installed"], document["active"], document["pid"]) == (True, "active (running)", 7)
    assert "fleet shop: up" in desk.fleet("service", "status", "fleet.yaml").out


def test_without_systemd_it_says_so(desk: Desk, machine: Machine) -> None:
    machine.program.write_text("#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")
    said = desk.fleet("service", "install", "fleet.yaml", code=10)

    assert "not been booted with systemd" in said.err
    assert desk.fleet("service", "status", "fleet.yaml", code=4).out.count("\n") == 2


def test_an_applied_fleet_knows_its_files(desk: Desk, machine: Machine) -> None:
    desk.fleet("apply")
    desk.fleet("service", "install", "--fleet", "shop")
    assert str(desk.manifest) in machine.unit.read_text()

    desk.fleet("service", "install", "fleet.yaml", "--user", "--run-as", "me", code=64)
