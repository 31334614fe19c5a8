"""What a replica runs, from its launch document: the argv and the environment of its program."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from fleet.core.desired import split_name
from fleet.core.spec import WorkerSpec
from fleet.replica import launch_document
from fleet.replica.account import variables
from fleet.replica.launch_document import DocumentError, LaunchDocument
from fleet.replica.pod_report import POD_VARIABLE, without_secrets

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR")
_OF_AN_ACCOUNT = ("HOME", "USER", "LOGNAME", "TMPDIR")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CELERY = ("-m", "celery")
_MEMBER = "fleet_celery_member"
_MEMBER_FOLDER = Path(__file__).resolve().parent.parent / "worker" / "celery_member" / "include"
"""Of the module that Celery's worker is told to import; nothing else is in there, because the app can import it too."""


class LaunchError(Exception):
    """The replica cannot be started; the message goes to its log. ``exit_code`` is what supervisord sees.

    lasts: another start of the same fails as well.
    """

    def __init__(self, message: str, *, exit_code: int = 1, lasts: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.lasts = lasts


def read_document(path: Path, *, digest: str) -> LaunchDocument:
    """The launch document, or LaunchError where it is unreadable or was written for another spec."""
    try:
        document = launch_document.read(path)
    except DocumentError as error:
        raise LaunchError(str(error)) from error
    if document.digest != digest:
        raise LaunchError(f"{path} holds digest {document.digest}, not {digest}: run `fleet apply` again")
    return document


def environment(document: LaunchDocument, around: Mapping[str, str]) -> dict[str, str]:
    """The program's environment: a few inherited variables, replaced by the spec's own, replaced by fleet's."""
    spec = document.spec
    group, index = split_name(document.replica)
    own = spec.account.user != ""
    inherited = {name: around[name] for name in _inherited(around) if not (own and name in _OF_AN_ACCOUNT)}
    try:
        secret = {name: document.secret(source) for name, source, _ in spec.secret_env}
        url = document.broker_url
    except DocumentError as error:
        raise LaunchError(str(error)) from error
    environ = {**variables(spec.account.uid if own else os.getuid()), "PATH": DEFAULT_PATH, **inherited}
    environ["PATH"] = with_folder_of(spec.python, environ["PATH"])
    # SPT_NOENV: setproctitle must not write over the environment that /proc shows, because fleet's mark is in it.
    environ |= {"SPT_NOENV": "1", "FLEET_HOME": str(document.run_folder.parent.parent)}
    if url:
        environ |= {"FLEET_BROKER_URL": url} | ({"CELERY_BROKER_URL": url} if spec.kind == "celery" else {})
    if spec.kind == "celery" and spec.pool.class_path:
        environ["CELERY_CUSTOM_WORKER_POOL"] = spec.pool.class_path
    if spec.kind == "celery":
        environ |= _without_option(spec)
    environ |= {**dict(spec.env), **secret}
    if spec.kind == "celery":
        environ["PYTHONPATH"] = os.pathsep.join((str(_MEMBER_FOLDER), *filter(None, [environ.get("PYTHONPATH")])))
    return {
        **environ,
        "FLEET_NAME": document.fleet,
        "FLEET_GROUP": group,
        "FLEET_REPLICA": document.replica,
        "FLEET_INDEX": str(index),
        "FLEET_DIGEST": document.digest,
        "FLEET_SPEC": str(document.worker_path),
        "FLEET_RECORD": str(document.record),
        "FLEET_PID": str(os.getpid()),
        **({} if spec.task_counters else {"FLEET_TASK_COUNTERS": "off"}),
    }


def _inherited(around: Mapping[str, str]) -> list[str]:
    """Names of what a program gets from around it. In a pod that is what its container was given, but for the values of
    secrets, and what supervisord adds."""
    if POD_VARIABLE not in around:
        return [name for name in _INHERITED if name in around]
    return [name for name in without_secrets(around) if not name.startswith("SUPERVISOR_")]


def command(document: LaunchDocument) -> tuple[str, ...]:
    """What to exec. The broker's URL is never in it: arguments are visible to everybody."""
    spec = document.spec
    python = spec.python or sys.executable
    if spec.kind == "worker":
        # -P: a module named fleet or pools in the release must not shadow ours; the worker adds the folder itself.
        return (python, "-P", "-m", "fleet.worker", str(document.worker_path))
    if spec.kind == "celery":
        return (python, *_CELERY, *celery_arguments(spec, document.replica, node=filled_in(spec.node, document)))
    return spec.command


def _without_option(spec: WorkerSpec) -> dict[str, str]:
    """What ``celery worker`` has no option for; the module that it imports applies it."""
    seconds = spec.broker.visibility_timeout_seconds
    found = {"FLEET_TASK_ACKS": spec.task.acks, "FLEET_VISIBILITY_TIMEOUT": None if seconds is None else f"{seconds:g}"}
    return {name: value for name, value in found.items() if value is not None}


def filled_in(template: str, document: LaunchDocument) -> str:
    """``celery@{group}-{index}`` of a replica."""
    return with_names(template, fleet=document.fleet, replica=document.replica)


def with_names(template: str, *, fleet: str, replica: str) -> str:
    """A template of the manifest with what it names put in."""
    group, index = split_name(replica)
    known = {"fleet": fleet, "replica": replica, "group": group, "index": str(index), "host": os.uname().nodename}
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], match[0]), template)


def celery_arguments(spec: WorkerSpec, replica: str, *, node: str = "") -> tuple[str, ...]:
    """The flags of ``celery worker`` that say the same as the spec. ``node``: its name; '': the usual one."""
    pool, task = spec.pool, spec.task
    limits = {
        "--time-limit": task.time_limit_seconds,
        "--soft-time-limit": task.soft_time_limit_seconds,
        "--max-tasks-per-child": pool.max_tasks_per_child,
        "--max-memory-per-child": pool.max_memory_per_child_bytes and max(1, pool.max_memory_per_child_bytes >> 10),
        "--prefetch-multiplier": task.prefetch and max(1, task.prefetch // pool.concurrency),
    }
    least = pool.min_concurrency and min(pool.min_concurrency, pool.concurrency)
    queues = ",".join(queue.name for queue in spec.queues)
    return (
        *("-A", spec.app, "worker", "-n", node or f"{replica}@%h"),
        *("-P", pool.type, "-c", str(pool.concurrency)),
        *((f"--autoscale={pool.concurrency},{least}",) if least else ()),
        *(("-Q", queues) if queues else ()),
        *("-l", spec.log_level, "--without-gossip", "--without-mingle", "-O", "fair", "-I", _MEMBER),
        *(
            f"{flag}={value:g}" if isinstance(value, float) else f"{flag}={value}"
            for flag, value in limits.items()
            if value
        ),
    )


def with_folder_of(python: str, path: str) -> str:
    """PATH with the interpreter's folder in front, so that ``celery`` is the one of its virtual environment."""
    return f"{os.path.dirname(python)}{os.pathsep}{path}" if os.path.isabs(python) else path
