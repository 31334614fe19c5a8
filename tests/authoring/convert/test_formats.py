"""What is imported does what the original did, and what cannot be carried over is a note."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.authoring.convert import Imported, import_from
from fleet.core.manifest.parse import Parsed, parse
from fleet.core.manifest.tree import Source
from fleet.errors import UsageError


def imported(kind: str, text: str) -> tuple[dict[str, dict[str, object]], Imported, Parsed]:
    result = import_from(kind, text, name="shop", source="file")
    parsed = parse([Source("fleet.yaml", result.manifest)], environ={"HOME": "/root", "PORT": "80"})
    return parsed.document["spec"]["groups"], result, parsed


# celery multi


def test_celery_multi_becomes_one_group_per_kind_of_node() -> None:
    line = (
        "celery multi start 4 -A proj -l INFO -P:1-2 gevent -c:1-2 50 -Q:1-2 mail "
        "-c 4 -Q:3,4 reports,late --time-limit=300 --soft-time-limit=240 "
        "--max-tasks-per-child=100 --max-memory-per-child 600000 --pidfile=/run/%n.pid"
    )
    groups, result, parsed = imported("celery-multi", line)
    first, second = groups.values()
    assert first == {
        "worker": "celery",
        "pool": {"type": "gevent", "concurrency": 50},
        "queues": {"mail": {}},
        "task": {"timeLimit": "5m", "softTimeLimit": "4m"},
        "logging": {"level": "INFO"},
        "replicas": 2,
    }
    assert second["pool"] == {
        "type": "prefork",
        "concurrency": 4,
        "maxTasksPerChild": 100,
        "maxMemoryPerChild": "600000Ki",
    }
    assert second["queues"] == {"reports": {}, "late": {}}
    assert second["replicas"] == 2
    assert parsed.manifest.spec.app == "proj"
    assert result.notes == ()


def test_named_nodes_with_equal_options_are_replicas_of_one_group() -> None:
    groups, _, _ = imported("celery-multi", "celery multi start worker1@%h worker2@%h beatless -A proj -c:beatless 1")
    assert {name: group["replicas"] for name, group in groups.items()} == {"worker": 2, "beatless": 1}


def test_file_of_an_init_script_is_read() -> None:
    text = """\
# Names of nodes to start
CELERYD_NODES="w1 w2"
CELERY_BIN="/srv/venv/bin/celery"
CELERY_APP="proj.celery:app"
CELERYD_CHDIR="/srv/proj"   # where to start
CELERYD_OPTS="--time-limit=300 --concurrency=8 \\
    -Q:w2 slow"
CELERYD_LOG_FILE="/var/log/celery/%n%I.log"
CELERYD_LOG_LEVEL="INFO"
CELERYD_USER="celery"
"""
    groups, result, parsed = imported("celery-multi", text)
    assert set(groups) == {"w", "w2"}
    assert groups["w2"]["queues"] == {"slow": {}}
    assert parsed.manifest.spec.release.workdir == "/srv/proj"
    assert parsed.manifest.spec.release.python == "/srv/venv/bin/python"
    assert result.notes == ("CELERYD_USER=celery: run the fleet command as this user",)
    assert "# Not taken over: CELERYD_USER=celery" in result.manifest


def test_what_has_no_counterpart_is_told() -> None:
    line = "celery multi start w -A proj --autoscale=10,3 -E -X slow -B --bogus=1 -n x@%h -O fair --without-gossip"
    groups, result, _ = imported("celery-multi", line)
    told = "\n".join(result.notes)
    for word in ("--autoscale=10,3", "-E", "-X slow", "--bogus=1"):
        assert word in told
    assert "fair" not in told
    assert groups["beat"]["command"] == ["celery", "-A", "proj", "beat"]


# Procfile


def test_procfile_becomes_workers_and_commands() -> None:
    text = """\
# processes
release: python manage.py migrate
web: gunicorn shop.wsgi --bind 0.0.0.0:$PORT
worker: DEBUG=1 celery -A shop worker -c 4 -Q mail,default -l warning
solo: python -m celery -A shop worker --pool=solo -c 1
clock: python clock.py --every 5
beat: celery -A shop beat
pipe: generate | consume
"""
    groups, result, parsed = imported("procfile", text)
    assert groups["web"]["command"] == ["sh", "-c", "exec gunicorn shop.wsgi --bind 0.0.0.0:$PORT"]
    assert groups["worker"] == {
        "worker": "celery",
        "pool": {"type": "prefork", "concurrency": 4},
        "queues": {"mail": {}, "default": {}},
        "logging": {"level": "WARNING"},
        "env": {"DEBUG": "1"},
        "replicas": 1,
    }
    assert groups["solo"]["pool"] == {"type": "solo"}
    assert groups["clock"]["command"] == ["python", "clock.py", "--every", "5"]
    assert groups["beat"] == {
        "command": ["celery", "-A", "shop", "beat"],
        "rollout": {"strategy": "recreate"},
        "replicas": 1,
    }
    assert groups["pipe"]["command"] == ["sh", "-c", "generate | consume"]
    assert parsed.manifest.spec.app == "shop"
    assert "migrate" in result.notes[0]


# supervisor


def test_supervisor_programs_become_groups() -> None:
    text = r"""
[unix_http_server]
file=/tmp/s.sock

[program:Mail_Worker]
command=/srv/venv/bin/celery -A shop worker -c 10 -n mail%(process_num)02d@%%h
process_name=%(program_name)s_%(process_num)02d
numprocs=3
directory=/srv/shop   ; the code
environment=A="x;y,z",B='100%%',HOME="%(ENV_HOME)s",FLEET_X="1"
stopwaitsecs=600
autostart=false
user=celery

[program:http]
command=/srv/venv/bin/serve --port=80%(process_num)02d "a b" * $HOME
numprocs=2

[group:all]
programs=http
"""
    groups, result, parsed = imported("supervisor", text)
    assert groups["mail-worker"] == {
        "worker": "celery",
        "pool": {"type": "prefork", "concurrency": 10},
        "env": {"A": "x;y,z", "B": "100%", "HOME": "/root"},
        "replicas": 3,
        "drain": {"timeout": "10m"},
        "paused": True,
    }
    command = groups["http"]["command"]
    assert command == ["sh", "-c", "exec /srv/venv/bin/serve --port=80\"$FLEET_INDEX\" 'a b' '*' '$HOME'"]
    assert parsed.manifest.spec.release.workdir == "/srv/shop"
    told = "\n".join(result.notes)
    assert "user=celery" in told
    assert "FLEET_X" in told
    assert "[group:all]" in told


def test_supervisor_words_are_not_read_by_a_shell() -> None:
    groups, _, _ = imported("supervisor", "[program:x]\ncommand=echo a|b '$HOME' *.py\n")
    assert groups["x"]["command"] == ["echo", "a|b", "$HOME", "*.py"]


# all of them


@pytest.mark.parametrize("kind", ["celery-multi", "procfile", "supervisor"])
@pytest.mark.parametrize("text", ["", "nonsense without anything", "# only a comment\n"])
def test_text_with_nothing_to_run_is_refused(kind: str, text: str) -> None:
    if kind == "celery-multi" and text.startswith("nonsense"):
        return  # any words are names of nodes
    with pytest.raises(UsageError) as caught:
        import_from(kind, text, name="shop")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("kind", "text"),
    [("celery-multi", 'celery multi start "w'), ("procfile", 'a: echo "b'), ("supervisor", "[program:x\ncommand=a")],
)
def test_text_that_cannot_be_read_is_refused(kind: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        import_from(kind, text, name="shop")
    assert caught.value.hint


def test_unknown_source_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot import from 'systemd'"):
        import_from("systemd", "", name="shop")


@given(st.sampled_from(["celery-multi", "procfile", "supervisor"]), st.text(max_size=80))
def test_any_text_is_imported_or_refused(kind: str, text: str) -> None:
    for body in (text, f"worker: {text}", f"[program:x]\ncommand={text}", f"CELERYD_NODES=w\nCELERYD_OPTS='{text}'"):
        with contextlib.suppress(UsageError):
            assert import_from(kind, body, name="shop").manifest
