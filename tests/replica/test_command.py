"""What a replica execs: argv and environment from its launch document. No process runs here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.core.spec import BrokerSpec, Kind, PoolSpec, QueueSpec, TaskPolicy, WorkerSpec
from fleet.replica.command import LaunchError, command, environment
from fleet.replica.launch_document import LaunchDocument
from tests.backends.worlds import spec_of

WORKER = WorkerSpec(
    kind="worker",
    fleet="shop",
    group="reports",
    app="shop.worker:app",
    python="/srv/venv/bin/python",
    broker=BrokerSpec(url="redis://broker/0"),
)


def document(spec: WorkerSpec, **secrets: str) -> LaunchDocument:
    run = Path("/var/lib/fleet/shop/run")
    return LaunchDocument(
        path=run / "specs" / "reports.3.json",
        fleet="shop",
        replica="reports.3",
        digest="9f31c2ab",
        spec=spec,
        secrets=secrets,
        record=run / "records" / "reports.3.rec",
        log=Path("/var/lib/fleet/shop/log/reports.3.log"),
        starts=run / "records" / "reports.3.starts",
    )


def test_a_worker_reads_its_own_launch_document() -> None:
    argv = command(document(WORKER))

    assert argv == ("/srv/venv/bin/python", "-P", "-m", "fleet.worker", "/var/lib/fleet/shop/run/specs/reports.3.json")


def test_a_celery_worker_gets_the_flags_that_say_the_same() -> None:
    spec = replace(
        WORKER,
        kind="celery",
        pool=PoolSpec("prefork", 10, max_tasks_per_child=500, max_memory_per_child_bytes=600 << 20),
        queues=(QueueSpec("reports"), QueueSpec("slow")),
        task=TaskPolicy(time_limit_seconds=600.0, soft_time_limit_seconds=540.5, prefetch=20),
    )

    assert " ".join(command(document(spec))) == (
        "/srv/venv/bin/python -m celery -A shop.worker:app worker -n reports.3@%h -P prefork -c 10 -Q reports,slow"
        " -l INFO --without-gossip --without-mingle -O fair -I fleet_celery_member"
        " --time-limit=600 --soft-time-limit=540.5"
        " --max-tasks-per-child=500 --max-memory-per-child=614400 --prefetch-multiplier=2"
    )


@pytest.mark.parametrize(("own", "expected"), [((), "{}"), ((("PYTHONPATH", "/srv/lib"),), "{}:/srv/lib")])
def test_a_celery_worker_finds_the_module_that_joins_it_to_its_fleet(
    own: tuple[tuple[str, str], ...], expected: str
) -> None:
    path = environment(document(replace(WORKER, kind="celery", env=own)), {})["PYTHONPATH"]
    folder = path.partition(":")[0]

    assert path == expected.format(folder)
    assert sorted(file.name for file in Path(folder).glob("*.py")) == ["__init__.py", "fleet_celery_member.py"]


def test_celery_accepts_every_flag_it_is_given() -> None:
    from celery.bin.worker import worker

    spec = replace(
        WORKER,
        kind="celery",
        pool=PoolSpec("prefork", 4, max_tasks_per_child=5, max_memory_per_child_bytes=1 << 30, min_concurrency=2),
        task=TaskPolicy(time_limit_seconds=600.0, soft_time_limit_seconds=0.5, prefetch=4),
        queues=(QueueSpec("reports"),),
    )
    arguments = list(command(document(spec)))

    parsed = worker.make_context("worker", arguments[arguments.index("worker") + 1 :], resilient_parsing=True)

    assert parsed.args == []
    assert parsed.params["time_limit"] == 600.0
    assert parsed.params["soft_time_limit"] == 0.5
    assert parsed.params["max_memory_per_child"] == 1 << 20
    assert parsed.params["prefetch_multiplier"] == 1
    assert parsed.params["autoscale"] == (4, 2)


def test_the_environment_is_the_specs_over_a_handful_of_inherited_ones() -> None:
    spec = replace(WORKER, env=(("TZ", "UTC"), ("POOL_SIZE", "20")), secret_env=(("STRIPE_KEY", "stripe", "mark"),))
    around = {"PATH": "/bin", "TZ": "Europe/Bern", "AWS_SECRET": "no", "VIRTUAL_ENV": "/x", "SUPERVISOR_ENABLED": "1"}

    environ = environment(document(spec, stripe="sk_1"), around)

    assert (environ["TZ"], environ["POOL_SIZE"], environ["STRIPE_KEY"]) == ("UTC", "20", "sk_1")
    assert not {"AWS_SECRET", "VIRTUAL_ENV", "SUPERVISOR_ENABLED", "CELERY_BROKER_URL"} & environ.keys()
    assert environ["PATH"] == "/srv/venv/bin:/bin"
    assert {name: value for name, value in environ.items() if name.startswith("FLEET_")} == {
        "FLEET_HOME": "/var/lib/fleet",
        "FLEET_NAME": "shop",
        "FLEET_GROUP": "reports",
        "FLEET_REPLICA": "reports.3",
        "FLEET_INDEX": "3",
        "FLEET_DIGEST": "9f31c2ab",
        "FLEET_SPEC": "/var/lib/fleet/shop/run/specs/reports.3.json",
        "FLEET_RECORD": "/var/lib/fleet/shop/run/records/reports.3.rec",
        "FLEET_PID": str(os.getpid()),
        "FLEET_BROKER_URL": "redis://broker/0",
    }


@pytest.mark.parametrize("kind", ["worker", "celery"])
def test_what_celery_worker_has_no_option_for_is_in_its_environment(kind: Kind) -> None:
    broker = BrokerSpec(url="redis://broker/0", visibility_timeout_seconds=5400.5)
    spec = replace(WORKER, kind=kind, broker=broker, task=TaskPolicy(acks="late"))
    found = [environment(document(spec), {}).get(name) for name in ("FLEET_TASK_ACKS", "FLEET_VISIBILITY_TIMEOUT")]
    assert found == (["late", "5400.5"] if kind == "celery" else [None, None])


@pytest.mark.parametrize(("slots", "flag"), [(10, "--autoscale=10,3"), (2, "--autoscale=2,2")])
def test_a_part_of_a_celery_worker_shrinks_no_further_than_it_has_slots(slots: int, flag: str) -> None:
    pool = PoolSpec("prefork", slots, min_concurrency=3)
    assert flag in command(document(replace(WORKER, kind="celery", pool=pool)))


def test_a_path_of_the_specs_own_is_left_as_written() -> None:
    environ = environment(document(replace(WORKER, env=(("PATH", "/opt/bin"),))), {"PATH": "/bin"})

    assert environ["PATH"] == "/opt/bin"


def test_a_broker_url_that_is_a_secret_is_resolved_and_never_an_argument() -> None:
    spec = replace(WORKER, kind="celery", broker=BrokerSpec(secret="broker-url", fingerprint="f"))
    found = document(spec, **{"broker-url": "amqp://user:pass@host//"})

    environ = environment(found, {})

    assert environ["FLEET_BROKER_URL"] == environ["CELERY_BROKER_URL"] == "amqp://user:pass@host//"
    assert "pass" not in " ".join(command(found))


def test_a_missing_secret_is_named() -> None:
    with pytest.raises(LaunchError, match="'stripe' is missing"):
        environment(document(replace(spec_of(), secret_env=(("KEY", "stripe", "mark"),))), {})
