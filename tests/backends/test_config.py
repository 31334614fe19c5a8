"""supervisord's configuration, read back by supervisord's own parser."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from supervisor.options import ServerOptions

from fleet.backends.supervisor import config
from fleet.core.spec import PARKED_EXIT
from fleet.errors import FleetError
from fleet.state.paths import Places

NASTY = "ab %;#'\"\\$[]*?{}=@:,~!&|<>()`\t\n\r\u00e9\u2028\u00a0é日.-_"


def read_back(places: Places) -> Any:
    options = ServerOptions()
    options.realize(["-c", str(places.supervisord_conf)])
    return options


def program_of(options: Any, name: str = "thumbs.0") -> Any:
    """The one program of a group."""
    (program,) = next(group.process_configs for group in options.process_group_configs if group.name == name)
    return program


def write(places: Places, *, python: str = "/usr/bin/python3", as_root: bool = False) -> None:
    for folder in (places.conf_d, places.log):
        folder.mkdir(parents=True, exist_ok=True)
    program = config.Program("thumbs.0", "9f31c2ab", 59.5)
    places.supervisord_conf.write_text(config.daemon_text(places, descriptors=1024, as_root=as_root, python=python))
    places.program_file("thumbs.0").write_text(config.program_text(program, places=places, python=python))


@pytest.mark.parametrize(
    "folder", ["plain", "with space", "per%cent", "per%%cent", "a'quote", 'b"quote', "back\\slash"]
)
def test_nasty_folders_survive_supervisords_parser(short_tmp: Path, folder: str) -> None:
    places = Places.of(short_tmp / folder, "shop")
    write(places, python=f"{short_tmp}/{folder}/bin/python")

    options = read_back(places)

    assert options.pidfile == str(config.pidfile(places))
    assert options.logfile == str(config.daemon_log(places))
    assert options.server_configs[0]["file"] == str(places.socket)
    keeper = program_of(options, config.LOG_KEEPER)
    assert shlex.split(keeper.command)[-2:] == ["fleet.backends.supervisor.log_keeper", str(places.log)]
    assert shlex.split(program_of(options).command) == [
        f"{short_tmp}/{folder}/bin/python",
        *("-P", "-m", "fleet.launch"),
        str(places.spec_file("thumbs.0")),
        "9f31c2ab",
    ]


@given(folder=st.text(alphabet=NASTY, min_size=1, max_size=12).filter(lambda text: text not in {".", ".."}))
@example("a ;b")
@example("a #b")
@example("%(here)s")
@example("%(ENV_HOME)s")
@example(";b")
@example("x\ny")
@example("[program:x]")
@settings(max_examples=150, deadline=None)
def test_a_path_is_refused_or_read_back_unchanged(folder: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as root:
        places = Places.of(Path(root) / folder, "shop")
        python = f"{root}/{folder}/python"
        try:
            write(places, python=python)
        except FleetError:
            return
        options = read_back(places)
        assert options.pidfile == str(config.pidfile(places))
        assert options.server_configs[0]["file"] == str(places.socket)
        words = shlex.split(program_of(options).command)
        assert words[0] == python
        assert words[-2] == str(places.spec_file("thumbs.0"))


def test_a_program_is_run_as_the_design_says(short_tmp: Path) -> None:
    places = Places.of(short_tmp, "shop")
    write(places)

    program = program_of(read_back(places))

    assert program.name == "thumbs.0@9f31c2ab"
    assert (program.stopsignal, program.stopwaitsecs) == (15, 60 + config.STOP_MARGIN_SECONDS)
    assert (program.stopasgroup, program.killasgroup) == (False, True)
    assert (program.startsecs, program.exitcodes) == (0, [PARKED_EXIT])
    assert program.redirect_stderr
    assert program.stdout_logfile is None
    assert config.parse_process_name("thumbs.0", program.name) == ("thumbs.0", "9f31c2ab")


def test_the_daemon_listens_on_a_private_socket_only(short_tmp: Path) -> None:
    places = Places.of(short_tmp, "shop")
    write(places)

    options = read_back(places)

    assert [server["file"] for server in options.server_configs] == [str(places.socket)]
    assert options.server_configs[0]["chmod"] == 0o600
    assert options.umask == 0o077
    assert options.identifier == "fleet-shop"
    assert options.minfds == 1024
    assert options.user is None


def test_root_is_named_so_that_supervisord_does_not_warn(short_tmp: Path) -> None:
    places = Places.of(short_tmp, "shop")
    write(places, as_root=True)

    assert read_back(places).uid == 0


def test_the_broker_is_stopped_last_by_supervisord_too(short_tmp: Path) -> None:
    places = Places.of(short_tmp, "shop")
    broker = config.program_text(config.Program("fleet-broker.0", "00000000", 10), places=places, python="python")
    worker = config.program_text(config.Program("thumbs.0", "00000000", 10), places=places, python="python")

    assert "priority=1\n" in broker
    assert "priority=999\n" in worker


def test_descriptors_grow_with_the_fleet() -> None:
    assert config.descriptors(1) == 1024
    assert config.descriptors(1000) > 2 * 1000 + 100


def test_a_socket_path_that_the_kernel_refuses_is_refused_with_a_hint() -> None:
    places = Places.of(Path("/" + "x" * 100), "shop")

    with pytest.raises(FleetError, match="too long for a unix socket by") as caught:
        config.daemon_text(places, descriptors=1024, as_root=False, python=sys.executable)

    assert "FLEET_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("group", "process"),
    [
        ("thumbs.0", "thumbs.0"),
        ("thumbs.0", "thumbs.1@9f31c2ab"),
        ("web", "web@9f31c2ab"),
        ("thumbs.0", "thumbs.0@9f31c2a"),
        ("Thumbs.0", "Thumbs.0@9f31c2ab"),
    ],
)
def test_other_peoples_programs_are_not_taken_for_ours(group: str, process: str) -> None:
    assert config.parse_process_name(group, process) is None
