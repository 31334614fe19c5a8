"""examples/05-take-over: the manifests are what the importers make, and run what the originals ran."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fleet.authoring.convert import AUTO, Imported, Input, import_files
from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Desired
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import AppFacts, Facts
from fleet.core.manifest.models import Group, Manifest
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.spec import LimitsSpec, WorkerSpec, digest
from fleet.inputs.env_from import values_of
from fleet.inputs.origin import files_of, lookup
from fleet.replica.command import command, environment
from fleet.replica.launch_document import LaunchDocument
from tests.operate.apply.test_walk import walk

EXAMPLES = Path(__file__).parents[3] / "examples/05-take-over"
DEPLOYMENTS = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
AROUND = {
    "DATABASE_URL": "postgres://db", "PORT": "8000", "LOG_LEVEL": "info", "DB_PASSWORD": "pw", "HOME": "/root",
}  # fmt: skip


def made_of(deployment: str, monkeypatch: pytest.MonkeyPatch) -> Imported:
    monkeypatch.chdir(EXAMPLES / deployment)
    found = files_of(["."], kind=AUTO)
    inputs = [Input(file, Path(file).read_text()) for file in found.files]
    return import_files(AUTO, inputs, name=deployment, files=lookup(found.files))


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_manifest_and_the_notes_are_what_is_made_today(deployment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_of(deployment, monkeypatch)
    assert made.manifest == (EXAMPLES / deployment / "fleet.yaml").read_text()
    assert [*made.notes] == (EXAMPLES / deployment / "notes.txt").read_text().splitlines()


@dataclass(frozen=True)
class Runs:
    """What one replica of a group is started as, and how many there are."""

    program: str
    env: dict[str, str]
    workdir: str
    count: int = 1
    stop_seconds: float = 60.0
    user: str | None = None
    paused: bool = False
    more: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """A manifest that was made, and the fleet that it describes on a machine of these tests."""

    manifest: Manifest
    desired: Desired
    secrets: dict[str, str]


def taken_over(deployment: str, folder: Path) -> Taken:
    text = (EXAMPLES / deployment / "fleet.yaml").read_text()
    env_file = EXAMPLES / deployment / "env"
    text = text.replace("/etc/orders/env", str(env_file))  # where the example keeps it
    manifest = parse([Source("fleet.yaml", text)], environ=AROUND).manifest
    values = values_of(manifest, folder=folder, environ=AROUND)
    secrets = dict.fromkeys(manifest.spec.secrets, "from-secret") | values
    apps = {app: AppFacts() for app in ("shop", "storefront.tasks:app", "office.celery", "app", "ingest.app")}
    facts = Facts(cpus=2, python="/usr/bin/python3", workdir="/here", apps=apps, secrets=dict.fromkeys(secrets, "mark"))
    return Taken(manifest, expand(manifest, facts=facts), secrets)


def started_by(deployment: str, tmp_path: Path) -> dict[str, Runs]:
    """Group -> what the launcher would exec, as a shell would write it; the surroundings are left out."""
    taken = taken_over(deployment, tmp_path)
    found = {}
    for name, group in taken.manifest.spec.groups.items():
        spec = taken.desired.groups[name].spec
        path = tmp_path / "run/specs/x.json"
        document = LaunchDocument(path, taken.manifest.name, f"{name}.0", digest(spec), spec, taken.secrets)
        found[name] = _runs(group, document)
    return found


def _runs(group: Group, document: LaunchDocument) -> Runs:
    spec, around = document.spec, {"HOME": "/root", "PATH": os.defpath}
    bare = WorkerSpec(spec.kind, spec.fleet, spec.group, python=spec.python)
    after = {name: one.condition for name, one in (group.depends_on or {}).items()}
    said: dict[str, object] = {
        "policy": spec.restart.policy,
        "job": spec.job,
        "limits": spec.limits,
        "stop": spec.stop,
        "after": after,
    }
    usual = {"policy": bare.restart.policy, "job": bare.job, "limits": bare.limits, "stop": bare.stop, "after": {}}
    always = environment(replace(document, spec=bare), around)
    env = {name: value for name, value in environment(document, around).items() if name not in always}
    return Runs(
        " ".join(command(document)),
        env,
        spec.workdir,
        count=group.replicas or 0,
        stop_seconds=spec.drain_timeout_seconds,
        user=group.user,
        paused=bool(group.paused),
        more={name: value for name, value in said.items() if value != usual[name]}
        | ({"after": after} if after else {}),
    )


SHOP = {"DJANGO_SETTINGS_MODULE": "shop.settings.production"}
OFFICE = {"DJANGO_SETTINGS_MODULE": "office.settings", "LANG_OF_REPORTS": "de", "SECRET_KEY": "only for tests"}
STACK = {"DATABASE_URL": "postgres://app:pw@db/app", "LOG_LEVEL": "info"}
ORDERS = {"LOG_LEVEL": "warning", "DATABASE_URL": "postgres://orders@db/orders"}
ALWAYS = "--without-gossip --without-mingle -O fair -I fleet_celery_member"


def celery(python: str, app: str, group: str, options: str, *, name: str = "") -> str:
    return f"{python} -m celery -A {app} worker -n {name or f'{group}.0@%h'} {options}"


HOST = os.uname().nodename
JOB: dict[str, object] = {"policy": "never", "job": True}
AFTER_RELEASE: dict[str, object] = {"after": {"release": "completed"}}


SHOP_PYTHON, OFFICE_PYTHON = "/srv/shop/venv/bin/python", "/opt/office/venv/bin/python"
EXPECTED = {
    "django-shop": {
        "shop-worker": Runs(
            celery(SHOP_PYTHON, "shop", "shop-worker", f"-P prefork -c 4 -Q default,mail -l INFO {ALWAYS}")
            + " --max-tasks-per-child=500",
            {**SHOP, "DATABASE_URL": "postgres://db"}, "/srv/shop/current", 2, 600.0, "shop",
            more={"after": {"shop-beat": "ready"}},
        ),
        "shop-thumbs": Runs(
            celery(SHOP_PYTHON, "shop", "shop-thumbs", f"-P threads -c 16 -Q thumbs -l WARNING {ALWAYS}"),
            SHOP, "/srv/shop/current", 1, 60.0, "shop", more={"after": {"shop-beat": "ready"}},
        ),
        "shop-beat": Runs(
            "/srv/shop/venv/bin/celery -A shop beat -l info -S django_celery_beat.schedulers:DatabaseScheduler",
            SHOP, "/srv/shop/current", 1, 60.0, "shop", more={"policy": "onFailure"},
        ),
        "shop-flower": Runs(
            'sh -c exec /srv/shop/venv/bin/celery -A shop flower --port=55"$(printf %02d $((FLEET_INDEX + 55)))"',
            {}, "/srv/shop/current", 1, 60.0, "shop", paused=True,
            more={"after": {"shop-worker": "ready", "shop-thumbs": "ready"}, "policy": "onFailure"},
        ),
    },
    "heroku-app": {
        "release": Runs("python manage.py migrate --noinput", {}, "/here", more=JOB),
        "web": Runs(
            'sh -c exec gunicorn "storefront:create_app()" --bind 0.0.0.0:$PORT --workers ${WEB_CONCURRENCY:-2}',
            {"PORT": "8000"}, "/here", more=AFTER_RELEASE,
        ),
        "worker": Runs(
            "sh -c exec celery -A storefront.tasks:app worker -l $LOG_LEVEL -c 8 -B", {"LOG_LEVEL": "info"}, "/here",
            more=AFTER_RELEASE,
        ),
        "urgent": Runs(
            celery("/usr/bin/python3", "storefront.tasks:app", "urgent",
                   f"-P gevent -c 100 -Q urgent -l INFO {ALWAYS}"),
            {"REMAP_SIGTERM": "SIGQUIT"}, "/here", more=AFTER_RELEASE,
        ),
        "clock": Runs("sh -c cd clock && exec python clock.py --every 30", {}, "/here", more=AFTER_RELEASE),
    },
    "celery-multi-host": {
        "mail": Runs(
            celery(OFFICE_PYTHON, "office.celery", "mail", f"-P prefork -c 2 -Q mail -l INFO {ALWAYS}")
            + " --time-limit=300 --soft-time-limit=270",
            OFFICE, "/opt/office/current", 2, 60.0, "celery",
        ),
        "reports": Runs(
            celery(OFFICE_PYTHON, "office.celery", "reports", f"-P prefork -c 1 -Q reports -l INFO {ALWAYS}")
            + " --time-limit=300 --soft-time-limit=270 --max-memory-per-child=600000",
            OFFICE, "/opt/office/current", 1, 60.0, "celery",
        ),
        "images": Runs(
            celery(OFFICE_PYTHON, "office.celery", "images", f"-P threads -c 12 -Q images -l INFO {ALWAYS}")
            + " --time-limit=300",
            OFFICE, "/opt/office/current", 1, 60.0, "celery",
        ),
    },
    "compose-stack": {
        "migrate": Runs("python manage.py migrate", STACK, "/here", 1, 60.0, "1000", more=JOB),
        "web": Runs(
            "gunicorn app.wsgi --bind 0.0.0.0:8000", STACK, "/here", 1, 60.0, "1000",
            more={"after": {"migrate": "completed"}},
        ),
        "worker": Runs(
            celery("/usr/bin/python3", "app", "worker", f"-P prefork -c 4 -Q default,mail -l INFO {ALWAYS}"),
            {**STACK, "C_FORCE_ROOT": "true"}, "/here", 3, 300.0, "1000",
            more={"limits": LimitsSpec(memory_bytes=1 << 30), "after": {"web": "ready"}},
        ),
        "beat": Runs(
            "sh -c rm -f celerybeat.pid && exec celery -A app beat -l info", STACK, "/here", 1, 60.0, "1000"
        ),
    },
    "systemd-pair": {
        "orders-beat": Runs(
            "/srv/orders/venv/bin/celery -A orders.app beat --loglevel=warning --schedule=/var/lib/orders/beat",
            ORDERS, "/srv/orders", 1, 60.0, "orders", more={"policy": "onFailure"},
        ),
        "orders-worker": Runs(
            celery("/srv/orders/venv/bin/python", "orders.app", "orders-worker",
                   f"-P prefork -c 3 -Q orders -l WARNING {ALWAYS}", name=f"orders0@{HOST}"),
            {**ORDERS, "PYTHONUNBUFFERED": "1", "ORDERS_MODE": "live"}, "/srv/orders", 1, 300.0, "orders",
            more={"limits": LimitsSpec(open_files=65536)},
        ),
    },
    "kubernetes-keda": {
        "ingest-worker": Runs(
            celery("/usr/bin/python3", "ingest.app", "ingest-worker", f"-P prefork -c 4 -Q ingest -l INFO {ALWAYS}"),
            {"LOG_LEVEL": "info", "BATCH": "500", "DATABASE_URL": "from-secret"}, "/here", 0, 300.0, "1000",
            more={"limits": LimitsSpec(memory_bytes=1 << 30)},
        ),
        "ingest-api": Runs("uvicorn ingest.api:app --host 0.0.0.0", {"MODE": "read-only"}, "/here", 1, 30.0),
    },
}  # fmt: skip


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_what_would_be_run_is_what_ran(deployment: str, tmp_path: Path) -> None:
    assert started_by(deployment, tmp_path) == EXPECTED[deployment]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_an_apply_starts_all_of_it_and_first_what_others_wait_for(deployment: str, tmp_path: Path) -> None:
    """The programs themselves are not on this machine: the backend is the one of tests."""
    taken = taken_over(deployment, tmp_path)
    world = MemoryBackend(taken.manifest.name)
    walk(taken.desired, world)
    seen = world.observe().replicas.values()
    own = {name for name, group in taken.desired.groups.items() if group.system}
    counts = Counter(replica.group for replica in seen if replica.group not in own)
    expected = {name: runs.count for name, runs in EXPECTED[deployment].items() if not runs.paused and runs.count}
    assert {name: counts[name] for name in expected} == expected
    assert all(replica.is_ready and replica.spec == taken.desired.groups[replica.group].spec for replica in seen)
    started = [name.partition(".")[0] for call, names in world.calls if call == "start" for name in names]
    for name, group in taken.manifest.spec.groups.items():
        for before in group.depends_on or () if name in started else ():
            assert started.index(before) < started.index(name)
