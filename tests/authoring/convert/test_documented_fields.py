"""Every field that docs/take-over.md lists is found in the manifest made of it, or in a note with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.authoring.convert import KINDS, Files, Input, import_files
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source

PAGE = Path(__file__).parents[3] / "docs/take-over.md"
NOTE = "note: "
SURROUNDINGS = {"X": "x", "PORT": "80", "HOME": "/root", "K": "k"}


def documented() -> dict[str, list[str]]:
    """Title of a section -> the fields in its table."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            title = line[3:]
        elif match := re.match(r"\| `([^`]+)` \|", line):
            found.setdefault(title, []).append(match[1])
    return found


def celery(options: str) -> str:
    return f"w: celery {'' if options.startswith('-A ') else '-A shop'} worker {options}\n"


def program(options: str, *, command: str = "serve --now") -> str:
    return f"[program:web]\ncommand={command}\n{options}\n"


def service(fields: str, *, rest: str = "") -> str:
    return f"services:\n  web:\n    build: .\n    command: serve now\n{fields}\n{rest}"


def unit(fields: str, *, exec_start: str = "/bin/serve now") -> str:
    return f"[Service]\nExecStart={exec_start}\nRestart=always\n{fields}\n"


def deployment(*, container: str = "", pod: str = "", spec: str = "", rest: str = "") -> str:
    return (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n"
        f"{spec}  template:\n    spec:\n{pod}      containers:\n        - name: web\n          command: [serve]\n"
        f"{container}{rest}"
    )


CONFIG = "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {K: from-config}\n"

CELERY = {
    "-A": (celery("-A pkg.mod:app"), "app: pkg.mod:app"),
    "-c": (celery("-c 7"), "concurrency: 7"),
    "-P": (celery("-P gevent"), "pool: gevent"),
    "-Q": (celery("-Q a,b"), "queues: [a, b]"),
    "-l": (celery("-l debug"), "level: DEBUG"),
    "-b": (celery("-b redis://h/3"), "broker: {url: redis://h/3}"),
    "--time-limit": (celery("--time-limit=77"), "timeLimit: 77s"),
    "--soft-time-limit": (celery("--soft-time-limit 66"), "softTimeLimit: 66s"),
    "--max-tasks-per-child": (celery("--max-tasks-per-child 55"), "maxTasksPerChild: 55"),
    "--max-memory-per-child": (celery("--max-memory-per-child 4000"), "maxMemoryPerChild: 4000Ki"),
    "--prefetch-multiplier": (celery("-c 3 --prefetch-multiplier 4"), "prefetch: 12"),
    "--autoscale": (celery("--autoscale=10,3"), "pool: {concurrency: 10, minConcurrency: 3}"),
    "--workdir": (celery("--workdir=/srv/x"), "workdir: /srv/x"),
    "--uid": (celery("--uid=www"), "user: www"),
    "--gid": (celery("--gid=staff"), "group: staff"),
    "-B": (celery("-B"), "command: [celery, -A, shop, beat]"),
    "-s": (celery("-B -s /var/s"), "beat, --schedule, /var/s"),
    "--scheduler": (celery("-B --scheduler a.B"), "beat, --scheduler, a.B"),
    "-n": (celery("-n me@%h"), 'name: "me@{host}"'),
    "-E": (celery("-E"), NOTE + "-E"),
    "-X": (celery("-X slow"), NOTE + "-X slow"),
    "-I": (celery("-I a.b"), NOTE + "-I a.b"),
    "-S": (celery("-S /var/state"), NOTE + "-S /var/state"),
    "-O": (celery("-O default"), NOTE + "-O default"),
    "-f": (celery("-f /var/log/x"), NOTE + "-f /var/log/x"),
    "-D": (celery("-D"), NOTE + "-D"),
    "-C": (celery("-C"), NOTE + "-C"),
    "-q": (celery("-q"), NOTE + "-q"),
    "--pidfile": (celery("--pidfile=/run/x"), NOTE + "--pidfile=/run/x"),
    "--config": (celery("--config=a.b"), NOTE + "--config=a.b"),
    "--loader": (celery("--loader=a.B"), NOTE + "--loader=a.B"),
    "--result-backend": (celery("--result-backend=redis://r"), NOTE + "--result-backend=redis://r"),
    "--executable": (celery("--executable=/p"), NOTE + "--executable=/p"),
    "--umask": (celery("--umask=022"), NOTE + "--umask=022"),
    "--purge": (celery("--purge"), NOTE + "--purge"),
    "--heartbeat-interval": (celery("--heartbeat-interval=9"), NOTE + "--heartbeat-interval=9"),
    "--without-heartbeat": (celery("--without-heartbeat"), NOTE + "--without-heartbeat"),
    "--disable-prefetch": (celery("--disable-prefetch"), NOTE + "--disable-prefetch"),
    "--skip-checks": (celery("--skip-checks"), NOTE + "--skip-checks"),
}

MULTI = {
    "NODES": ("celery multi start w1 w2 -A shop", "replicas: 2"),
    "OPTION:NODES": ("celery multi start a b c -A shop -c 1 -c:a,b 9", "concurrency: 9"),
    "export": ("export MODE=live\ncelery multi start w -A shop", "env: {MODE: live}"),
    "cd": ("cd /srv/y\ncelery multi start w -A shop", "workdir: /srv/y"),
    "stop": ("celery multi start w -A shop\ncelery multi stopwait w", NOTE + "celery multi stopwait"),
}


def celeryd(line: str, *, app: str = "CELERY_APP=shop\n") -> str:
    return f"CELERYD_NODES=w\n{app}{line}\n"


CELERYD = {
    "CELERYD_NODES": ("CELERYD_NODES='w1 w2 w3'\nCELERY_APP=shop\n", "replicas: 3"),
    "CELERYD_OPTS": (celeryd('CELERYD_OPTS="-c 6"'), "concurrency: 6"),
    "CELERY_APP": (celeryd("CELERY_APP=a.b:c", app=""), "app: a.b:c"),
    "CELERY_BIN": (celeryd("CELERY_BIN=/v/bin/celery"), "python: /v/bin/python"),
    "CELERYD_MULTI": (celeryd('CELERYD_MULTI="/m/bin/celery multi"'), "python: /m/bin/python"),
    "CELERYD_CHDIR": (celeryd("CELERYD_CHDIR=/srv/z"), "workdir: /srv/z"),
    "CELERYD_LOG_LEVEL": (celeryd("CELERYD_LOG_LEVEL=ERROR"), "level: ERROR"),
    "CELERYD_USER": (celeryd("CELERYD_USER=www"), "user: www"),
    "CELERYD_GROUP": (celeryd("CELERYD_GROUP=staff"), "group: staff"),
    "CELERYBEAT_OPTS": (celeryd("CELERYBEAT_OPTS=--schedule=/s"), 'beat, "--schedule=/s"'),
    "CELERYBEAT_CHDIR": (celeryd("CELERYD_CHDIR=/a\nCELERYBEAT_CHDIR=/srv/b\n"), "release: {workdir: /srv/b}"),
    "CELERYBEAT_USER": (celeryd("CELERYBEAT_USER=clock"), "user: clock"),
    "CELERYBEAT_GROUP": (celeryd("CELERYBEAT_GROUP=clocks"), "group: clocks"),
    "CELERYBEAT_LOG_LEVEL": (celeryd("CELERYBEAT_LOG_LEVEL=DEBUG"), "beat, -l, DEBUG"),
    "CELERYD_LOG_FILE": (celeryd("CELERYD_LOG_FILE=/l"), NOTE + "CELERYD_LOG_FILE=/l"),
    "CELERYD_PID_FILE": (celeryd("CELERYD_PID_FILE=/p"), NOTE + "CELERYD_PID_FILE=/p"),
    "CELERYD_STATE_DIR": (celeryd("CELERYD_STATE_DIR=/s"), NOTE + "CELERYD_STATE_DIR=/s"),
    "CELERYBEAT_LOG_FILE": (celeryd("CELERYBEAT_LOG_FILE=/l"), NOTE + "CELERYBEAT_LOG_FILE=/l"),
    "CELERYBEAT_PID_FILE": (celeryd("CELERYBEAT_PID_FILE=/p"), NOTE + "CELERYBEAT_PID_FILE=/p"),
    "CELERY_CREATE_DIRS": (celeryd("CELERY_CREATE_DIRS=1"), NOTE + "CELERY_CREATE_DIRS=1"),
    "SECRET_KEY": (celeryd("SECRET_KEY=abc"), "SECRET_KEY: abc"),
    "source": (celeryd(". /etc/more"), "FROM_FILE: yes-it-is"),
}

PROCFILE = {
    "NAME": ("web: serve now", "command: [serve, now]"),
    "release": ("release: migrate\nweb: serve", "dependsOn: {release: completed}"),
    "$PORT": ("web: serve --port=$PORT", "envFrom: [{inherit: [PORT]}]"),
}

SUPERVISOR = {
    "command": (program(""), "command: [serve, --now]"),
    "numprocs": (program("numprocs=4"), "replicas: 4"),
    "numprocs_start": (program("numprocs_start=3", command="serve %(process_num)d"), "FLEET_INDEX + 3"),
    "%(process_num)02d": (program("", command="serve 80%(process_num)02d"), "printf %02d"),
    "%(ENV_X)s": (program("", command="serve %(ENV_X)s"), "${env:X}"),
    "directory": (program("directory=/srv/d"), "workdir: /srv/d"),
    "environment": (program("environment=A=\"b c\",D='e'"), 'env: {A: "b c", D: e}'),
    "user": (program("user=www"), "user: www"),
    "umask": (program("umask=027"), "umask 027 && exec serve"),
    "autostart": (program("autostart=false"), "paused: true"),
    "startsecs": (program("startsecs=9"), "readyAfter: 9s"),
    "startretries": (program("startretries=5"), "maxCrashes: 5"),
    "stopwaitsecs": (program("stopwaitsecs=90"), "timeout: 90s"),
    "priority": (program("priority=9\n[program:db]\ncommand=db\npriority=1"), "dependsOn: [db]"),
    "autorestart": (program("autorestart=unexpected"), "restart: {policy: onFailure}"),
    "exitcodes": (program("exitcodes=0,2"), NOTE + "web: exitcodes=0,2"),
    "stopsignal": (program("stopsignal=QUIT"), "stop: {signal: QUIT}"),
    "stopasgroup": (program("stopasgroup=true"), "stop: {group: true}"),
    "killasgroup": (program("killasgroup=true"), NOTE + "web: killasgroup=true"),
    "process_name": (program("process_name=x"), NOTE + "web: process_name=x"),
    "stdout_logfile": (program("stdout_logfile=/l"), NOTE + "web: stdout_logfile=/l"),
    "stderr_logfile": (program("stderr_logfile=/l"), NOTE + "web: stderr_logfile=/l"),
    "redirect_stderr": (program("redirect_stderr=true"), NOTE + "web: redirect_stderr=true"),
    "[include]": (program("[include]\nfiles=more.conf"), "command: [included]"),
    "[group]": (program("[group:g]\nprograms=web"), NOTE + "[group:g] programs=web"),
    "[supervisord]": (program("[supervisord]\nenvironment=ALL='1'"), "ALL: "),
    "[eventlistener]": (program("[eventlistener:e]\ncommand=e"), NOTE + "[eventlistener:e]"),
    "[unix_http_server]": (program("[unix_http_server]\nfile=/s"), NOTE + "[unix_http_server]"),
}

COMPOSE = {
    "command": (service(""), "command: [serve, now]"),
    "entrypoint": (service("    entrypoint: [run, it]"), "command: [run, it, serve, now]"),
    "environment": (service("    environment: {A: b}"), "env: {A: b}"),
    "env_file": (service("    env_file: [a.env]"), "envFrom: [{file: a.env}]"),
    "user": (service("    user: www:staff"), "group: staff"),
    "scale": (service("    scale: 4"), "replicas: 4"),
    "deploy.replicas": (service("    deploy: {replicas: 5}"), "replicas: 5"),
    "deploy.resources": (
        service("    deploy: {resources: {limits: {cpus: '0.5', memory: 512M}}}"),
        "limits: {memory: 512Mi, cpus: 0.5}",
    ),
    "mem_limit": (service("    mem_limit: 1g"), "limits: {memory: 1Gi}"),
    "cpus": (service("    cpus: 2"), "limits: {cpus: 2}"),
    "ulimits": (service("    ulimits: {nofile: {soft: 99, hard: 999}}"), "limits: {openFiles: 999}"),
    "stop_grace_period": (service("    stop_grace_period: 1m30s"), "timeout: 90s"),
    "depends_on": (service("    depends_on: [b]", rest="  b: {build: ., command: b}"), "dependsOn: [b]"),
    "restart": (service("    restart: 'on-failure:5'"), "restart: {policy: onFailure, maxCrashes: 5}"),
    "stop_signal": (service("    stop_signal: SIGINT"), "stop: {signal: INT}"),
    "image": (service("", rest="  db: {image: 'postgres:16'}"), NOTE + "db: image postgres:16"),
    "build": (service(""), NOTE + "web: build ."),
    "working_dir": (service("    working_dir: /app"), NOTE + "web: working_dir /app"),
    "ports": (service("    ports: ['80:80']"), NOTE + "web: ports"),
    "volumes": (service("    volumes: ['.:/app']"), NOTE + "web: volumes"),
    "healthcheck": (
        service("    healthcheck: {test: [CMD, check], interval: 1m30s, timeout: 3s, retries: 5, start_period: 40s}"),
        "health: {command: [check], interval: 90s, timeout: 3s, readyTimeout: 40s, failures: 5}",
    ),
    "secrets": (service("    secrets: [key]"), NOTE + "web: secret key"),
    "profiles": (service("    profiles: [dev]"), NOTE + "web: profiles"),
    "networks": (service("    networks: [n]"), NOTE + "web: networks"),
}

SYSTEMD = {
    "ExecStart": (unit(""), "command: [/bin/serve, now]"),
    "Environment": (unit('Environment="A=b c" D=e'), 'env: {A: "b c", D: e}'),
    "PassEnvironment": (unit("PassEnvironment=X"), "envFrom: [{inherit: [X], optional: true}]"),
    "EnvironmentFile": (unit("EnvironmentFile=/e"), "envFrom: [{file: /e}]"),
    "User": (unit("User=www"), "user: www"),
    "Group": (unit("Group=staff"), "group: staff"),
    "WorkingDirectory": (unit("WorkingDirectory=/srv/u"), "workdir: /srv/u"),
    "UMask": (unit("UMask=0027"), "umask 0027"),
    "TimeoutStopSec": (unit("TimeoutStopSec=1min 30s"), "timeout: 90s"),
    "RestartSec": (unit("RestartSec=7"), "initial: 7s"),
    "StartLimitBurst": (unit("StartLimitBurst=4"), "maxCrashes: 4"),
    "StartLimitIntervalSec": (unit("StartLimitIntervalSec=9min"), "window: 9m"),
    "Restart": (unit("Restart=on-failure"), "restart: {policy: onFailure}"),
    "KillSignal": (unit("KillSignal=SIGINT"), "stop: {signal: INT}"),
    "KillMode": (unit("KillMode=control-group"), "stop: {group: true}"),
    "Type": (unit("Type=oneshot\nRestart=no"), "job: true"),
    "ExecStartPre": (unit("ExecStartPre=/bin/pre"), NOTE + "ExecStartPre=/bin/pre"),
    "ExecStop": (unit("ExecStop=/bin/stop"), NOTE + "ExecStop=/bin/stop"),
    "LimitNOFILE": (unit("LimitNOFILE=99"), "limits: {openFiles: 99}"),
    "MemoryMax": (unit("MemoryMax=2G"), "limits: {memory: 2Gi}"),
    "CPUQuota": (unit("CPUQuota=150%"), "limits: {cpus: 1.5}"),
    "Nice": (unit("Nice=-5"), "nice: -5"),
    "NoNewPrivileges": (unit("NoNewPrivileges=yes"), "noNewPrivileges: true"),
    "MemoryKSM": (unit("MemoryKSM=yes"), "mergeMemory: true"),
    "After": ("[Unit]\nAfter=net\n" + unit(""), NOTE + "After=net"),
    "WantedBy": (unit("[Install]\nWantedBy=multi"), NOTE + "WantedBy=multi"),
    "%i": (unit("", exec_start="/bin/serve --at=%i"), "--at=${FLEET_INDEX}"),
}

HPA = (
    "\n---\napiVersion: autoscaling/v2\nkind: {kind}\nmetadata: {{name: s}}\n"
    "spec: {{scaleTargetRef: {{name: web}}, {low}: 2, {high}: 9}}\n"
)
KUBERNETES = {
    "command": (deployment(), "command: [serve]"),
    "args": (deployment(container="          args: [--now]\n"), "command: [serve, --now]"),
    "env": (deployment(container="          env: [{name: A, value: b}]\n"), "env: {A: b}"),
    "secretKeyRef": (
        deployment(container="          env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]\n"),
        "secretEnv: {A: s-k}",
    ),
    "configMapKeyRef": (
        deployment(
            container="          env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: K}}}]\n", rest=CONFIG
        ),
        "env: {A: from-config}",
    ),
    "envFrom": (
        deployment(container="          envFrom: [{configMapRef: {name: c}}]\n", rest=CONFIG),
        "env: {K: from-config}",
    ),
    "replicas": (deployment(spec="  replicas: 6\n"), "replicas: 6"),
    "terminationGracePeriodSeconds": (deployment(pod="      terminationGracePeriodSeconds: 77\n"), "timeout: 77s"),
    "runAsUser": (deployment(pod="      securityContext: {runAsUser: 1001}\n"), 'user: "1001"'),
    "runAsGroup": (deployment(pod="      securityContext: {runAsGroup: 1002}\n"), 'group: "1002"'),
    "HorizontalPodAutoscaler": (
        deployment(rest=HPA.format(kind="HorizontalPodAutoscaler", low="minReplicas", high="maxReplicas")),
        "autoscale: {min: 2, max: 9, unit: 1}",
    ),
    "ScaledObject": (
        deployment(rest=HPA.format(kind="ScaledObject", low="minReplicaCount", high="maxReplicaCount")),
        "autoscale: {min: 2, max: 9, unit: 1}",
    ),
    "initContainers": (
        deployment(pod="      initContainers: [{name: i, command: [migrate]}]\n"),
        "dependsOn: {web-i: completed}",
    ),
    "image": (deployment(container="          image: i:1\n"), NOTE + "web: image i:1"),
    "workingDir": (deployment(container="          workingDir: /app\n"), NOTE + "web: workingDir /app"),
    "livenessProbe": (
        deployment(
            container="          livenessProbe: {httpGet: {path: /ok, port: web}, periodSeconds: 7}\n"
            "          ports: [{name: web, containerPort: 8080}]\n"
        ),
        "health: {http: {port: 8080, path: /ok}, interval: 7s, timeout: 1s}",
    ),
    "readinessProbe": (
        deployment(container="          readinessProbe: {exec: {command: [ok]}, failureThreshold: 2}\n"),
        "health: {command: [ok], timeout: 1s, failures: 2}",
    ),
    "startupProbe": (
        deployment(container="          startupProbe: {exec: {command: [ok]}, failureThreshold: 12}\n"),
        "health: {readyTimeout: 2m}",
    ),
    "resources": (
        deployment(container="          resources: {limits: {cpu: 500m, memory: 1Gi}}\n"),
        "limits: {cpus: 0.5, memory: 1Gi}",
    ),
    "ports": (deployment(container="          ports: [{containerPort: 80}]\n"), NOTE + "web: ports"),
    "volumes": (deployment(pod="      volumes: [{name: v}]\n"), NOTE + "web: volumes"),
    "serviceAccountName": (deployment(pod="      serviceAccountName: a\n"), NOTE + "web: serviceAccountName"),
    "Job": (
        deployment(
            rest="\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n"
            "spec: {template: {spec: {containers: [{name: c, command: [migrate]}]}}}\n"
        ),
        "job: true",
    ),
    "CronJob": (
        deployment(rest="\n---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\n"),
        NOTE + "CronJob c",
    ),
    "Service": (deployment(rest="\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\n"), NOTE + "Service s"),
}

SAMPLES = {
    "celery worker": ("procfile", "Procfile", CELERY),
    "celery-multi": ("celery-multi", "run.sh", MULTI),
    "celeryd": ("celeryd", "celeryd", CELERYD),
    "procfile": ("procfile", "Procfile", PROCFILE),
    "supervisor": ("supervisor", "s.conf", SUPERVISOR),
    "compose": ("compose", "compose.yaml", COMPOSE),
    "systemd": ("systemd", "web.service", SYSTEMD),
    "kubernetes": ("kubernetes", "k.yaml", KUBERNETES),
}
AROUND = {"/etc/more": "FROM_FILE=yes-it-is\n", "more.conf": "[program:more]\ncommand=included\n"}
CASES = [
    (kind, source, field, text, expected)
    for kind, source, samples in SAMPLES.values()
    for field, (text, expected) in samples.items()
]


def test_every_documented_field_has_a_sample_and_every_kind_a_table() -> None:
    pages = documented()
    assert {title: set(samples) for title, (_, _, samples) in SAMPLES.items()} == {
        title: set(fields) for title, fields in pages.items() if title != "What becomes of a program"
    }
    assert set(KINDS) <= set(pages)


@pytest.mark.parametrize(("kind", "source", "field", "text", "expected"), CASES)
def test_field_is_in_the_manifest_or_in_a_note(kind: str, source: str, field: str, text: str, expected: str) -> None:
    files = Files(AROUND.get, lambda pattern: [pattern] if pattern in AROUND else [])
    made = import_files(kind, [Input(source, text)], name="shop", files=files)
    parse([Source("fleet.yaml", made.manifest)], environ=SURROUNDINGS)
    body = "\n".join(line for line in made.manifest.splitlines() if not line.startswith("#"))
    if expected.startswith(NOTE):
        wanted = expected.removeprefix(NOTE)
        notes = [note for note in made.notes if wanted in note]
        assert notes, made.notes
        assert all(re.match(rf"{re.escape(source)}:[1-9][0-9]*: ", note) for note in notes), notes
    else:
        assert expected in body, body


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("supervisor", program("frobnicate=yes")),
        ("compose", service("    frobnicate: yes")),
        ("systemd", unit("Frobnicate=yes")),
        ("kubernetes", deployment(container="          frobnicate: yes\n")),
        ("kubernetes", deployment(pod="      frobnicate: yes\n")),
        ("kubernetes", deployment(spec="  frobnicate: yes\n")),
        ("celeryd", celeryd("CELERYD_FROBNICATE=yes")),
        ("procfile", celery("--frobnicate=yes")),
    ],
)
def test_field_that_nobody_knows_is_a_note(kind: str, text: str) -> None:
    made = import_files(kind, [Input("web.service", text)], name="shop")
    assert any("robnicate" in note.lower() for note in made.notes)
