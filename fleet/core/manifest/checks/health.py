"""Health checks and what a start waits for."""

from __future__ import annotations

from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.models import Group
from fleet.core.manifest.tree import Path
from fleet.core.spec import READY_TIMEOUT_SECONDS
from fleet.core.text.format import duration, shown
from fleet.core.text.mask import masked
from fleet.core.text.outside_url import url_problem


def health(context: CheckContext, path: Path, group: Group) -> None:
    """When it is ready, and the check: one kind, with something to check."""
    said = group.health
    if said is None:
        return
    ready_timeout = READY_TIMEOUT_SECONDS if said.ready_timeout is None else said.ready_timeout
    if said.ready_after is not None and said.ready_after >= ready_timeout:
        message = f"readyAfter {duration(said.ready_after)} is not below readyTimeout {duration(ready_timeout)}"
        context.problem((*path, "health", "readyAfter"), message, "lower readyAfter or raise readyTimeout")
    if said.command is not None and said.http is not None:
        context.problem((*path, "health", "http"), "command and http exclude each other", "keep one of them")
    if said.command is None and said.http is None:
        for name, value in (("interval", said.interval), ("timeout", said.timeout), ("failures", said.failures)):
            if value is not None:
                hint = "add health.command or health.http, or remove it"
                context.problem((*path, "health", name), f"{name} is of a check, and there is none", hint)
        return
    if said.command is not None and not said.command[0].strip():
        context.problem((*path, "health", "command", 0), "the program is empty", "the first item is what to run")
    if group.job:
        field = "http" if said.command is None else "command"
        context.problem((*path, "health", field), "a job is done when it ends, not when a check passes", "remove it")


def wait_for(context: CheckContext, path: Path, group: Group) -> None:
    """URLs that can be asked."""
    for index, url in enumerate(group.wait_for.urls if group.wait_for is not None else ()):
        if problem := url_problem(url):
            hint = "write it like tcp://db:5432, redis://cache/0 or http://api:8000/ready"
            message = f"{shown(masked(url))} cannot be asked: {problem}"
            context.problem((*path, "waitFor", "urls", index), message, hint)
