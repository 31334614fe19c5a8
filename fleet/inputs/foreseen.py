"""What is known to fail before anything is started: a program, folder or interpreter that is not there, a broker that
does not answer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.core.desired import Desired, DesiredGroup, broker_of
from fleet.core.spec import BrokerSpec, WorkerSpec
from fleet.core.text.mask import masked
from fleet.core.text.outside_url import url_problem
from fleet.replica.command import DEFAULT_PATH, with_folder_of
from fleet.replica.outside import why_silent_soon

BROKER_SECONDS = 2.0
_SHEBANG_BYTES = 256


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One thing that will fail. ``path``: the field of the manifest that it is about; ``group`` '': all of them."""

    group: str
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.group}: {self.message}" if self.group else self.message


def foreseen(desired: Desired, secrets: Mapping[str, str], *, only: Collection[str] | None = None) -> list[Foreseen]:
    """What will fail of a fleet's own groups when they start here as it is now. ``only``: of these groups."""
    groups = [group for group in desired.groups.values() if only is None or group.name in only]
    found = [one for group in groups for one in of_group(group)]
    if not any(group.spec.broker != BrokerSpec() and group.replicas for group in groups if not group.system):
        return found
    broker = broker_of(desired) or BrokerSpec()
    return [*found, *_of_broker(secrets.get(broker.secret, "") if broker.secret else broker.url, broker)]


def of_group(group: DesiredGroup) -> Iterator[Foreseen]:
    """What will fail of one group; the broker is not asked."""
    if group.replicas and not group.system:
        yield from _of_group(group)


def _of_group(group: DesiredGroup) -> Iterator[Foreseen]:
    spec = group.spec
    if spec.workdir and not os.path.isdir(spec.workdir):
        hint = "make it, or write another release.workdir"
        yield Foreseen(group.name, "spec.release.workdir", f"there is no folder {spec.workdir}", hint)
        return
    if spec.health_check.command and (why := _missing_program(spec, spec.health_check.command[0])):
        where = f"spec.groups.{group.name}.health.command"
        yield Foreseen(group.name, where, f"health check {spec.health_check.command[0]!r}: {why}", _HINT)
    if spec.kind != "command":
        if spec.python and (why := _unable(spec.python)):
            hint = "write the path of a Python interpreter as release.python"
            yield Foreseen(group.name, "spec.release.python", f"interpreter {spec.python}: {why}", hint)
        return
    if why := _missing_program(spec, spec.command[0]):
        yield Foreseen(group.name, f"spec.groups.{group.name}.command", f"program {spec.command[0]!r}: {why}", _HINT)


_HINT = "install it, or write its whole path; a program of a virtual environment is found by release.python"


def _missing_program(spec: WorkerSpec, program: str) -> str:
    """Why a program cannot be run; found as the launcher finds it."""
    if "/" in program:
        return _unable(os.path.join(spec.workdir, program))
    around = os.environ.get("PATH", DEFAULT_PATH)
    # What the group sets is what the launcher searches, and an interpreter's folder is always in front.
    path = with_folder_of(spec.python, dict(spec.env).get("PATH", around))
    where = shutil.which(program, path=path)
    return _unable(where) if where else f"not found in PATH ({path})"


def _unable(path: str) -> str:
    """Why a file cannot be run; '' where it can."""
    if not os.path.exists(path):
        return "there is no such file"
    if not os.path.isfile(path):
        return "it is no file"
    if not os.access(path, os.X_OK):
        return "it is not executable"
    interpreter = _interpreter(path)
    if interpreter and not os.path.exists(interpreter):
        return f"its first line names {interpreter}, and there is no such file"
    return ""


def _interpreter(path: str) -> str:
    """What the first line of a script names; '' for anything else."""
    try:
        with Path(path).open("rb") as file:
            line = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    except OSError:
        return ""
    words = line.removeprefix(b"#!").split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _of_broker(url: str, broker: BrokerSpec) -> Iterator[Foreseen]:
    """A broker of a kind that can be asked without its client. One of a list that answers is enough."""
    urls = [one for one in url.split(";") if one]
    if not urls or any(url_problem(one) for one in urls) or _is_own(urls[0]):
        return
    problems = [why_silent_soon(one, timeout_seconds=BROKER_SECONDS) for one in urls]
    if all(problems):
        name = f"the secret {broker.secret}" if broker.secret else masked(urls[0])
        message = f"the broker does not answer ({name}): {problems[0]}"
        yield Foreseen("", "spec.broker.url", message, "workers wait for it until it does")


def _is_own(url: str) -> bool:
    """The embedded broker, which is started with the fleet."""
    return url.startswith("redis+socket:")
