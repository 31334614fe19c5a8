"""What is imported does what the original did, and what cannot be carried over is a note."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.authoring.convert import KINDS, Imported, Input, import_files, import_from, kind_of
from fleet.authoring.convert.limits import memory, processors
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
    for word in ("-E", "-X slow", "--bogus=1"):
        assert word in told
    assert "fair" not in told
    assert groups["w"]["pool"] == {"concurrency": 10, "minConcurrency": 3}
    assert groups["w"]["name"] == "x@{host}"
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
        "dependsOn": {"release": {"condition": "completed"}},
    }
    assert groups["release"] == {"command": ["python", "manage.py", "migrate"], "job": True, "replicas": 1}
    assert groups["solo"]["pool"] == {"type": "solo"}
    assert groups["clock"]["command"] == ["python", "clock.py", "--every", "5"]
    assert groups["beat"] == {
        "command": ["celery", "-A", "shop", "beat"],
        "rollout": {"strategy": "recreate"},
        "replicas": 1,
        "dependsOn": {"release": {"condition": "completed"}},
    }
    assert groups["pipe"]["command"] == ["sh", "-c", "generate | consume"]
    assert parsed.manifest.spec.app == "shop"
    assert result.notes[0].endswith("add what the programs read, {inherit: [DATABASE_URL, …]}")


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


@pytest.mark.parametrize(
    ("directory", "folder"),
    [("%(here)s", ".."), ("%(here)s/app", "../app"), ("app", "../app"), ("/srv/shop", "/srv/shop")],
)
def test_a_folder_of_supervisor_is_seen_from_the_manifest(directory: str, folder: str) -> None:
    text = f"[program:x]\ncommand=celery -A shop worker\ndirectory={directory}\n"
    made = import_files("supervisor", [Input("shop.conf", text, "..")], name="shop")
    parsed = parse([Source("deploy/fleet.yaml", made.manifest)], environ={})
    assert parsed.document["spec"]["release"] == {"workdir": folder}


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
        ("nice -n 5", ""),
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
    assert groups["redis"]["command"] == ["redis-server"]
    assert groups["redis"]["release"] == {"workdir": "/"}


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


# What only some programs have


def test_niceness_is_a_field() -> None:
    groups, _, _ = imported("procfile", "w: nice -n 5 celery -A shop worker\nv: nice celery -A shop worker -c 2\n")
    assert (groups["w"]["nice"], groups["v"]["nice"]) == (5, 10)


@pytest.mark.parametrize(
    ("line", "words", "waits"),
    [
        ("wait-for-it.sh db:5432 -- serve", ["serve"], {"urls": ["tcp://db:5432"]}),
        ("./wait-for-it.sh -t 30 db:5432 --strict -- serve -x", ["serve", "-x"],
         {"urls": ["tcp://db:5432"], "timeout": "30s"}),
        ("dockerize -wait tcp://db:5432 -wait http://api/ok -timeout 60s serve", ["serve"],
         {"urls": ["tcp://db:5432", "http://api/ok"], "timeout": "1m"}),
        ("wait-for-it.sh --unknown db:5432 -- serve", ["wait-for-it.sh", "--unknown", "db:5432", "--", "serve"], None),
    ],
)  # fmt: skip
def test_a_script_that_waits_becomes_a_field(line: str, words: list[str], waits: object) -> None:
    groups, _, _ = imported("procfile", f"w: {line}\n")
    assert (groups["w"]["command"], groups["w"].get("waitFor")) == (words, waits)
    groups, _, _ = imported("procfile", "w: wait-for-it.sh mq:5672 -- celery -A shop worker\n")
    assert (groups["w"]["worker"], groups["w"]["waitFor"]) == ("celery", {"urls": ["tcp://mq:5672"]})


def test_a_script_that_waits_for_another_service_depends_on_it() -> None:
    text = (
        "services:\n  api: {build: ., command: serve}\n"
        "  web: {build: ., command: wait-for-it.sh api:80 mq:5672 -- serve}\n"
        "  job: {build: ., command: wait-for-it.sh -t 9 api:80 -- serve}\n"
    )
    groups, _, _ = imported("compose", text)
    assert (groups["web"]["dependsOn"], groups["web"]["waitFor"]) == ({"api": {}}, {"urls": ["tcp://mq:5672"]})
    assert groups["job"]["dependsOn"] == {"api": {}}
    assert "waitFor" not in groups["job"]


OF_COMMANDS = {
    "supervisor": "[program:w]\ncommand={}\nautorestart=false\nstopsignal=INT\nstopasgroup=true\n",
    "systemd": "[Service]\nExecStart={}\nRestart=no\nKillSignal=SIGINT\nKillMode=control-group\n",
    "compose": "services:\n  w: {{build: ., command: {}, restart: 'no', stop_signal: SIGINT}}\n",
}


@pytest.mark.parametrize("kind", OF_COMMANDS)
def test_what_only_a_command_has_is_a_note_of_a_worker(kind: str) -> None:
    groups, result, _ = imported(kind, OF_COMMANDS[kind].format("serve"))
    (group,) = groups.values()
    assert (group["restart"], group["stop"]["signal"]) == ({"policy": "never"}, "INT")
    assert group["stop"].get("group", False) == (kind != "compose")
    groups, result, _ = imported(kind, OF_COMMANDS[kind].format("celery -A shop worker"))
    (group,) = groups.values()
    assert not {"restart", "stop"} & set(group)
    for word in ("estart", "INT", *(() if kind == "compose" else ("roup",))):
        assert any(word in note for note in result.notes), result.notes


def test_the_number_of_a_process_stays_in_the_name_of_a_worker() -> None:
    text = "[program:w]\ncommand=celery -A shop worker -n w%(process_num)d@%%h\nnumprocs=2\nprocess_name=x\n"
    groups, result, _ = imported("supervisor", text)
    assert groups["w"]["name"] == "w{index}@{host}"
    for change in (("num)d", "num)02d"), ("numprocs=2", "numprocs=2\nnumprocs_start=1")):
        groups, result, _ = imported("supervisor", text.replace(*change))
        assert "name" not in groups["w"]
        assert any("-n w%N@%h: left out" in note for note in result.notes)


@pytest.mark.parametrize(
    ("hostname", "name"), [("w@%h", "w@{host}"), ("w", "celery@w"), ("w@%d", None), ("%n@x", None)]
)
def test_the_name_of_a_worker(hostname: str, name: str | None) -> None:
    groups, result, _ = imported("procfile", f"w: celery -A shop worker -n {hostname}\n")
    assert groups["w"].get("name") == name
    assert any(f"-n {hostname}: left out" in note for note in result.notes) == (name is None)


def test_groups_of_another_folder_and_interpreter_have_their_own() -> None:
    text = "".join(
        f"[program:{name}]\ndirectory=/srv/{name}\ncommand=/srv/{name}/venv/bin/celery -A shop worker -c {slots}\n"
        for name, slots in (("a", 1), ("b", 2))
    )
    groups, result, parsed = imported("supervisor", text)
    assert parsed.manifest.spec.release.workdir == "/srv/a"
    assert "release" not in groups["a"]
    assert groups["b"]["release"] == {"python": "/srv/b/venv/bin/python", "workdir": "/srv/b"}
    assert result.notes == ()


def test_a_job_of_compose_is_what_others_wait_for() -> None:
    text = (
        "services:\n  migrate: {build: ., command: migrate}\n  cache: {build: ., command: cache}\n"
        "  web:\n    build: .\n"
        "    command: serve\n    depends_on: {migrate: {condition: service_completed_successfully},"
        " cache: {condition: service_started}, db: {condition: service_healthy}}\n"
    )
    groups, result, _ = imported("compose", text)
    assert groups["migrate"]["job"] is True
    assert groups["web"]["dependsOn"] == {"cache": {}, "migrate": {"condition": "completed"}}
    assert any("depends_on db (service_healthy)" in note for note in result.notes)


@pytest.mark.parametrize("test", ["celery -A shop inspect ping -d celery@$$HOSTNAME", "other"])
def test_a_worker_tells_by_itself_how_it_is(test: str) -> None:
    text = f"services:\n  w: {{build: ., command: celery -A shop worker, healthcheck: {{test: '{test}'}}}}\n"
    groups, result, _ = imported("compose", text)
    assert groups["w"].get("health") == (None if "inspect" in test else {"command": ["sh", "-c", "other"]})
    assert any("tells by itself" in note for note in result.notes) == ("inspect" in test)


def test_a_unit_that_runs_once_is_a_job_of_what_comes_after_it() -> None:
    job = Input("migrate.service", "[Service]\nType=oneshot\nExecStart=/bin/migrate\n")
    web = Input(
        "web.service", "[Unit]\nAfter=migrate.service net.target\n[Service]\nExecStart=/bin/web\nRestart=always\n"
    )
    made = import_files("systemd", [job, web], name="shop")
    groups = parse([Source("fleet.yaml", made.manifest)], environ={}).document["spec"]["groups"]
    assert groups["migrate"] == {"command": ["/bin/migrate"], "job": True, "replicas": 1}
    assert groups["web"]["dependsOn"] == {"migrate": {"condition": "completed"}}
    assert any("Type=oneshot: a job" in note for note in made.notes)
    assert any("After=net.target: left out" in note for note in made.notes)
    assert not any("migrate.service: left out" in note for note in made.notes)


@pytest.mark.parametrize(
    ("probe", "told"),
    [
        ("tcpSocket: {port: 80}", "only exec and httpGet"),
        ("httpGet: {port: 80, scheme: HTTPS}", "no TLS"),
        ("httpGet: {port: unknown}", "its port or path"),
        ("exec: {command: [celery, inspect, ping]}", "a worker tells by itself"),
    ],
)
def test_a_probe_without_a_counterpart_is_told(probe: str, told: str) -> None:
    text = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {template: {spec: {containers: [{name: c,"
        f" command: [celery, -A, shop, worker], livenessProbe: {{{probe}}}}}]}}}}}}\n"
    )
    groups, result, _ = imported("kubernetes", text)
    assert "health" not in groups["w"]
    assert any(told in note for note in result.notes), result.notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("512m", "512Mi"),
        ("1GB", "1Gi"),
        ("1.5g", "1.5Gi"),
        ("1048576", "1048576"),
        ("10k", None),
        ("x", None),
        ("", None),
    ],
)
def test_sizes(text: str, said: str | None) -> None:
    assert memory(text) == said


@pytest.mark.parametrize(("text", "said"), [("512Mi", "512Mi"), ("1G", "1000000000"), ("1Gi", "1Gi"), ("1K", None)])
def test_sizes_of_kubernetes(text: str, said: str | None) -> None:
    assert memory(text, decimal=True) == said


@pytest.mark.parametrize(
    ("text", "said"), [("2", 2), ("0.5", 0.5), ("250m", 0.25), ("150%", 1.5), ("0", None), ("max", None)]
)
def test_processors(text: str, said: float | None) -> None:
    assert processors(text) == said


@pytest.mark.parametrize(
    ("kind", "text", "policy"),
    [
        ("supervisor", "[program:w]\ncommand=serve\n", "onFailure"),
        ("supervisor", "[program:w]\ncommand=serve\nautorestart=true\n", None),
        ("compose", "services:\n  w: {image: x, command: serve}\n", "never"),
        ("compose", "services:\n  w: {image: x, command: serve, restart: always}\n", None),
        ("systemd", "[Service]\nExecStart=/bin/serve\n", "never"),
    ],
)
def test_a_program_is_started_again_as_its_format_does_where_it_says_nothing(
    kind: str, text: str, policy: str | None
) -> None:
    made = import_from(kind, text, name="shop")
    assert f"policy: {policy}" in made.manifest if policy else "policy:" not in made.manifest
    assert not [note for note in made.notes if "restart" in note]
