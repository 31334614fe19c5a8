"""What is imported does what the original did, and what cannot be carried over is a note."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.authoring.convert import KINDS, Imported, import_from, kind_of
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
        "concurrency": 4,
        "maxTasksPerChild": 100,
        "maxMemoryPerChild": "600000Ki",
    }
    assert second["queues"] == {"reports": {}, "late": {}}
    assert second["replicas"] == 2
    assert parsed.manifest.spec.app == "proj"
    assert {note.split(": ", 2)[2] for note in result.notes} == {
        "--pidfile=/run/%n.pid: left out; `fleet status` knows the process",
        "max_tasks 100: left out; only prefork workers replace children",
        "max_memory 600000: left out; only prefork workers replace children",
    }


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
    assert groups["w"]["user"] == "celery"
    assert result.notes == (
        "file:8: CELERYD_LOG_FILE=/var/log/celery/%n%I.log: left out; read the log with `fleet logs`",
    )
    assert f"# Not taken over: {result.notes[0]}" in result.manifest


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
        "pool": {"concurrency": 4},
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
        "pool": {"concurrency": 10},
        "user": "celery",
        "env": {"A": "x;y,z", "B": "100%", "HOME": "/root"},
        "replicas": 3,
        "drain": {"timeout": "10m"},
        "paused": True,
    }
    command = groups["http"]["command"]
    assert command == [
        "sh",
        "-c",
        "exec /srv/venv/bin/serve --port=80\"$(printf %02d $FLEET_INDEX)\" 'a b' '*' '$HOME'",
    ]
    assert parsed.manifest.spec.release.workdir == "/srv/shop"
    told = "\n".join(result.notes)
    assert "FLEET_X" in told
    assert "[group:all]" in told


def test_supervisor_words_are_not_read_by_a_shell() -> None:
    groups, _, _ = imported("supervisor", "[program:x]\ncommand=echo a|b '$HOME' *.py\n")
    assert groups["x"]["command"] == ["echo", "a|b", "$HOME", "*.py"]


# all of them


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "nonsense without anything", "# only a comment\n"])
def test_text_with_nothing_to_run_is_refused(kind: str, text: str) -> None:
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
    with pytest.raises(UsageError, match="cannot import from 'crontab'"):
        import_from("crontab", "", name="shop")


@given(st.sampled_from(KINDS), st.text(max_size=80))
def test_any_text_is_imported_or_refused(kind: str, text: str) -> None:
    for body in (
        text,
        f"worker: {text}",
        f"[program:x]\ncommand={text}",
        f"CELERYD_NODES=w\nCELERYD_OPTS='{text}'",
        f"services: {{a: {text}}}",
    ):
        with contextlib.suppress(UsageError):
            assert import_from(kind, body, name="shop").manifest


# what is not of the kind

OF_A_KIND = {
    "procfile": "web: serve\n",
    "supervisor": "[program:web]\ncommand=serve\n",
    "compose": "services:\n  web: {build: ., command: serve}\n",
    "systemd": "[Service]\nExecStart=/bin/serve\n",
    "kubernetes": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
    "celeryd": "CELERYD_NODES=w\nCELERY_APP=shop\n",
    "celery-multi": "celery multi start w -A shop\n",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_recognised_by_its_text(kind: str) -> None:
    assert kind_of(OF_A_KIND[kind]) == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_file_of_a_different_kind_is_refused_with_the_right_one(kind: str, other: str) -> None:
    if kind == other or (kind, other) == ("celery-multi", "celeryd"):
        return  # the kind itself; a celeryd file holds the arguments of celery multi
    with pytest.raises(UsageError) as caught:
        import_from(kind, OF_A_KIND[other], name="shop", source="given")
    assert "given" in caught.value.message
    assert f"--from {other}" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "python manage.py celeryd_multi start w1 -c 3",
        "echo celery multi is a word here",
        "some words that name nothing",
        "celery multi start $NODES -A shop",
    ],
)
def test_celery_multi_takes_no_text_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        import_from("celery-multi", text, name="shop")


def test_two_multi_lines_are_two_sets_of_nodes() -> None:
    text = "celery multi start a -A one -c 1\ncelery multi start b -A two -c 2\n"
    groups, _, _ = imported("celery-multi", text)
    assert {name: (group["app"], group["pool"]) for name, group in groups.items()} == {
        "a": ("one", {"concurrency": 1}),
        "b": ("two", {"concurrency": 2}),
    }


def test_a_line_that_is_none_of_a_procfile_is_named() -> None:
    with pytest.raises(UsageError, match=r"^Procfile:3: not a line"):
        import_from("procfile", "web: serve\n\njust words\n", name="shop", source="Procfile")


def test_what_is_not_supervisors_is_told_with_the_file() -> None:
    with pytest.raises(UsageError, match=r"^shop\.conf: not supervisor's INI"):
        import_from("supervisor", "[program:x\ncommand=a", name="shop", source="shop.conf")


def test_yaml_that_reads_like_a_procfile_is_none() -> None:
    assert kind_of("just: text\n", source="compose.yaml") == ""
    assert kind_of("web: serve\n", source="sub/Procfile.dev") == "procfile"


# lines for a shell


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ('gunicorn "app:create_app()"', ["gunicorn", "app:create_app()"]),
        ("serve 'a|b' \"c;d\" e\\&f", ["serve", "a|b", "c;d", "e&f"]),
        ("serve --port=$PORT", ["sh", "-c", "exec serve --port=$PORT"]),
        ("serve '$PORT'", ["serve", "$PORT"]),
        ("serve *.py", ["sh", "-c", "exec serve *.py"]),
        ("serve > log 2>&1", ["sh", "-c", "exec serve > log 2>&1"]),
        ("A=$PORT serve", ["sh", "-c", "A=$PORT exec serve"]),
        ("migrate && serve", ["sh", "-c", "migrate && exec serve"]),
        ("migrate; A=1 serve", ["sh", "-c", "migrate; A=1 exec serve"]),
        ("exec serve", ["serve"]),
        ("bash -c 'migrate && serve'", ["bash", "-c", "migrate && exec serve"]),
        ("a | b", ["sh", "-c", "a | b"]),
        ("a || b", ["sh", "-c", "a || b"]),
        ("for x in 1 2; do serve $x; done", ["sh", "-c", "for x in 1 2; do serve $x; done"]),
    ],
)
def test_a_shell_runs_only_what_needs_one_and_becomes_the_last_program(line: str, command: list[str]) -> None:
    made = import_from("procfile", f"web: {line}\n", name="shop")
    parsed = parse([Source("fleet.yaml", made.manifest)], environ={"PORT": "80", "x": ""})
    assert parsed.document["spec"]["groups"]["web"]["command"] == command


def test_a_folder_and_variables_before_a_program_become_fields() -> None:
    groups, _, parsed = imported("procfile", "web: cd site && export A=1 && B=2 serve\n")
    assert groups["web"] == {"command": ["serve"], "env": {"A": "1", "B": "2"}, "replicas": 1}
    assert parsed.manifest.spec.release.workdir == "site"


@pytest.mark.parametrize(
    ("wrapper", "told"),
    [
        ("poetry run", "poetry run"),
        ("uv run --frozen", "uv run"),
        ("nice -n 5", "nice -n 5"),
        ("tini --", "tini"),
        ("watchmedo auto-restart -d . --", "watchmedo"),
        ("env A=1", ""),
    ],
)
def test_a_worker_is_seen_through_a_wrapper(wrapper: str, told: str) -> None:
    groups, result, _ = imported("procfile", f"w: {wrapper} celery -A shop worker -c 2\n")
    assert groups["w"]["worker"] == "celery"
    assert groups["w"]["pool"] == {"concurrency": 2}
    assert not told or any(told in note for note in result.notes)


@pytest.mark.parametrize("wrapper", ["newrelic-admin run-program", "ddtrace-run", "opentelemetry-instrument"])
def test_an_agent_that_hides_a_worker_is_told(wrapper: str) -> None:
    groups, result, _ = imported("procfile", f"w: {wrapper} celery -A shop worker\n")
    assert groups["w"]["command"] == [*wrapper.split(), "celery", "-A", "shop", "worker"]
    assert any("runs a Celery worker" in note for note in result.notes)


@pytest.mark.parametrize("app", ["worker", "beat", "multi"])
def test_an_app_may_be_named_like_a_verb(app: str) -> None:
    groups, _, parsed = imported("procfile", f"w: celery --app {app} worker -c 2\nb: celery -A {app} beat\n")
    assert groups["w"]["worker"] == "celery"
    assert parsed.manifest.spec.app == app
    assert groups["b"]["command"] == ["celery", "-A", app, "beat"]


def test_numbers_of_the_surroundings_stay_references() -> None:
    groups, _, _ = imported("procfile", "w: celery -A shop worker -c ${PORT:-4}\n")
    assert groups["w"]["pool"] == {"concurrency": 80}
    groups, _, _ = imported("supervisor", "[program:x]\ncommand=serve\nnumprocs=%(ENV_PORT)s\n")
    assert groups["x"]["replicas"] == 80
    groups, _, _ = imported("compose", "services:\n  x: {build: ., command: serve, scale: '${N:-3}'}\n")
    assert groups["x"]["replicas"] == 3


# beat, folder, interpreter, broker


def test_beat_of_a_worker_keeps_all_that_the_worker_had() -> None:
    text = (
        "[program:w]\ncommand=/v/bin/celery -A shop worker -B -l debug -s /var/s\n"
        "environment=A='1'\nuser=www\ndirectory=/srv/shop\n"
    )
    groups, _, _ = imported("supervisor", text)
    assert groups["beat"]["command"] == [
        "/v/bin/celery", "-A", "shop", "beat", "--schedule", "/var/s", "--loglevel", "debug",
    ]  # fmt: skip
    assert (groups["beat"]["env"], groups["beat"]["user"]) == ({"A": "1"}, "www")


def test_an_app_gets_one_beat() -> None:
    text = "w: celery -A shop.app worker -B\nv: celery -A shop.app worker -B -c 9\nclock: celery -A shop beat\n"
    groups, result, _ = imported("procfile", text)
    assert set(groups) == {"w", "v", "clock"}
    assert sum("clock sends the schedule" in note for note in result.notes) == 2


def test_the_folder_is_that_of_the_celery_programs() -> None:
    text = (
        "[program:redis]\ncommand=redis-server\ndirectory=/\n[program:w]\ndirectory=/srv/shop\n"
        "command=/usr/local/bin/celery -A shop worker\n"
    )
    groups, result, parsed = imported("supervisor", text)
    assert parsed.manifest.spec.release.workdir == "/srv/shop"
    assert parsed.manifest.spec.release.python is None
    assert any("/usr/local/bin/celery: its interpreter is unknown" in note for note in result.notes)
    assert groups["redis"]["command"] == ["sh", "-c", "cd / && exec redis-server"]


def test_the_broker_of_one_worker_stays_its_own() -> None:
    text = "a: celery -A shop worker -b redis://u:secret@h/1\nb: celery -A shop worker -c 2\n"
    groups, result, parsed = imported("procfile", text)
    assert parsed.manifest.spec.broker is None
    assert groups["a"]["env"] == {"CELERY_BROKER_URL": "redis://u:secret@h/1"}
    assert "env" not in groups["b"]
    assert not any("secret" in note for note in result.notes)


def test_options_for_some_nodes_reach_each_of_them() -> None:
    text = "CELERYD_NODES='a@h b@h c@h'\nCELERY_APP=shop\nCELERYD_OPTS='-c 1 -c:b,c 5 -Q:c slow'\n"
    groups, _, _ = imported("celeryd", text)
    assert [(name, group["pool"]["concurrency"], group.get("queues")) for name, group in groups.items()] == [  # type: ignore[index]
        ("a", 1, None),
        ("b", 5, None),
        ("c", 5, {"slow": {}}),
    ]
