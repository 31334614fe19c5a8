"""The text of a unit, and that systemd understands it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.operate.service.unit import Service, unit_text

SHOP = Service(
    fleet="shop",
    command=("/opt/fleet/bin/python", "-P", "-m", "fleet", "run", "/srv/shop/fleet.yaml", "--keep-going"),
    folder="/srv/shop",
    home="/var/lib/fleet",
    drain_seconds=74.2,
    environment={"PATH": "/usr/bin:/bin"},
)

GOLDEN = """\
# Written by `fleet service install`; it is overwritten by the next one.
[Unit]
Description=fleet shop
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
WorkingDirectory=/srv/shop
Environment=FLEET_HOME=/var/lib/fleet
Environment=PATH=/usr/bin:/bin
ExecStart=/opt/fleet/bin/python -P -m fleet run /srv/shop/fleet.yaml --keep-going
ExecReload=kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec=105
OOMPolicy=continue
LimitNOFILE=65536:524288
TasksMax=infinity
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
ProtectSystem=full
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectClock=yes
ProtectHostname=yes

[Install]
WantedBy=multi-user.target
"""


def test_a_unit_of_the_machine() -> None:
    assert unit_text(SHOP) == GOLDEN


def test_a_unit_of_a_user_asks_for_nothing_that_needs_root() -> None:
    lines = unit_text(replace(SHOP, of_user=True)).splitlines()

    assert "WantedBy=default.target" in lines
    assert "NoNewPrivileges=yes" in lines
    assert [line for line in lines if line.startswith(("Protect", "Private", "After", "User"))] == []


def test_strict_leaves_writable_what_the_fleet_writes() -> None:
    lines = unit_text(replace(SHOP, user="shop", hardening="strict", writable=("/srv/shop data",))).splitlines()

    assert "User=shop" in lines
    assert [line for line in lines if line.startswith("ProtectSystem")] == ["ProtectSystem=strict"]
    assert [line for line in lines if line.startswith("ReadWritePaths")] == [
        "ReadWritePaths=/var/lib/fleet",
        'ReadWritePaths="/srv/shop data"',
    ]


def test_without_hardening_nothing_is_forbidden() -> None:
    assert "NoNewPrivileges" not in unit_text(replace(SHOP, hardening="off"))


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/srv/a b/fleet.yaml", '"/srv/a b/fleet.yaml"'),
        ("/srv/100%/fleet.yaml", "/srv/100%%/fleet.yaml"),
        ("/srv/$HOME/fleet.yaml", '"/srv/$$HOME/fleet.yaml"'),
        ('/srv/"q"/fleet.yaml', '"/srv/\\"q\\"/fleet.yaml"'),
        ("/srv/back\\slash.yaml", '"/srv/back\\\\slash.yaml"'),
    ],
)
def test_words_of_the_command_arrive_as_they_are(word: str, written: str) -> None:
    assert f"ExecStart=run {written}\n" in unit_text(replace(SHOP, command=("run", word)))


def test_a_path_that_no_unit_can_hold_is_refused() -> None:
    with pytest.raises(FleetError, match="unit file cannot hold"):
        unit_text(replace(SHOP, folder="/srv/two\nlines"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("hardening", ["off", "standard", "strict"])
@pytest.mark.parametrize("of_user", [False, True])
def test_systemd_understands_it(tmp_path: Path, hardening: str, *, of_user: bool) -> None:
    folder = tmp_path / 'a folder with 100% "quotes" $HOME'
    folder.mkdir()
    service = replace(
        SHOP,
        command=("/bin/sh", "-c", "true", str(folder / "fleet.yaml")),
        folder=str(folder),
        home=str(folder),
        of_user=of_user,
        hardening=hardening,
        environment_files=(str(folder / "some.env"),),
    )
    path = tmp_path / service.unit
    path.write_text(unit_text(service))

    mode = ["--user"] if of_user else []
    environ = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    said = subprocess.run(
        ["systemd-analyze", *mode, "--man=no", "verify", str(path)], capture_output=True, text=True, env=environ
    )

    assert (said.returncode, [line for line in said.stderr.splitlines() if service.unit in line]) == (0, [])
