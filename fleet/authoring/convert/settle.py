"""What can be decided only when all groups are known: folder, interpreter, broker, beat, order, budget."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

from fleet.authoring.convert.draft import Draft, DraftGroup


@dataclass(slots=True)
class Settled:
    """The parts of a manifest: fields of ``spec`` before the groups, and the groups."""

    release: dict[str, str] = field(default_factory=dict)
    broker_url: str = ""
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    concurrency: int = 0
    groups: dict[str, dict[str, object]] = field(default_factory=dict)


def settle(draft: Draft) -> Settled:
    """Decide, and write the rest into the groups or into notes."""
    _beats(draft)
    found = Settled(secrets=dict(draft.secrets))
    _release(draft, found)
    _broker(draft, found)
    _order(draft)
    _after(draft)
    _budget(draft, found)
    found.groups = {name: group.fields for name, group in draft.groups.items()}
    return found


def _note(draft: Draft, group: DraftGroup, text: str) -> None:
    draft.source = group.source
    draft.note(text, group.line)


def _beats(draft: Draft) -> None:
    """``-B`` of a worker becomes a group of its own, unless its app has a beat already: two would send all twice."""
    there = {group.package: name for name, group in draft.groups.items() if group.is_beat}
    for name, group in list(draft.groups.items()):
        if not group.wants_beat:
            continue
        if group.package in there:
            _note(draft, group, f"{name}: -B: left out; {there[group.package]} sends the schedule")
            continue
        kept = {key: value for key, value in group.fields.items() if key in {"env", "secretEnv", "user", "group"}}
        fields = {"command": group.wants_beat, **kept, "rollout": {"strategy": "recreate"}}
        draft.source = group.source
        beat = DraftGroup(fields, "beat", line=group.line, workdir=group.workdir, is_beat=True, package=group.package)
        there[group.package] = draft.add(beat)
        text = f"-B: the schedule is sent by the group {there[group.package]}, one process of its own"
        _note(draft, group, f"{name}: {text}")


def _release(draft: Draft, found: Settled) -> None:
    """The folder of the Celery programs, else the most common one; programs of another folder go there themselves."""
    celery = [group.workdir for group in draft.groups.values() if group.is_celery or group.is_beat]
    folders = [folder for folder in celery if folder] if celery else [group.workdir for group in draft.groups.values()]
    if folders and (folder := Counter(folders).most_common(1)[0][0]):
        found.release["workdir"] = folder
    pythons = Counter(group.python for group in draft.groups.values() if group.python)
    if pythons:
        found.release["python"] = pythons.most_common(1)[0][0]
    for name, group in draft.groups.items():
        own: dict[str, str] = {}
        if group.python and group.python != found.release["python"]:
            own["python"] = group.python
        other = _from(found.release.get("workdir", ""), group.workdir)
        if other and ("command" not in group.fields or other.startswith("/")):
            own["workdir"] = group.workdir
            other = ""
        if own:
            group.fields["release"] = own
        if "command" in group.fields:
            group.fields["command"] = _moved(group.fields["command"], other, group.umask)
            continue
        if group.umask:
            _note(draft, group, f"{name}: umask {group.umask}: left out; the worker keeps the umask of fleet")


def _from(workdir: str, folder: str) -> str:
    """The folder as seen from the working folder; empty where they are the same or none is said."""
    if not folder or folder == workdir:
        return ""
    return folder if folder.startswith("/") or not workdir else posixpath.relpath(folder, workdir)


def _moved(command: object, folder: str, umask: str) -> object:
    """The command, begun in another folder and with its own umask."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    steps = [f"umask {umask}"] if umask else []
    steps += [f"cd {shlex.quote(folder)}"] if folder else []
    if not steps:
        return command
    if len(words) == 3 and words[1] == "-c" and re.search(r"(^|/)(ba|da|a|z)?sh$", words[0]):
        return [words[0], "-c", " && ".join([*steps, words[2]])]
    return ["sh", "-c", " && ".join([*steps, f"exec {shlex.join(words)}"])]


def _broker(draft: Draft, found: Settled) -> None:
    """One broker of all workers is the fleet's; that of some workers only stays theirs."""
    workers = {name: group for name, group in draft.groups.items() if group.is_celery}
    urls = {group.broker for group in workers.values()}
    if len(urls) == 1:
        found.broker_url = urls.pop()
        return
    for name, group in workers.items():
        if group.broker:
            env = group.fields.get("env")
            group.fields["env"] = {**(env if isinstance(env, dict) else {}), "CELERY_BROKER_URL": group.broker}
            url = re.sub(r"://[^/@]*@", "://…@", group.broker)
            _note(draft, group, f"{name}: -b {url}: in env, because other workers have another broker")


def _order(draft: Draft) -> None:
    """Programs with a start order depend on those of the step before."""
    steps = sorted({group.order for group in draft.groups.values() if group.order is not None})
    for earlier, later in pairwise(steps):
        before = [
            name for name, group in draft.groups.items() if group.order == earlier and not group.fields.get("paused")
        ]
        for group in draft.groups.values():
            if group.order == later and before:
                group.fields.setdefault("dependsOn", before)


def _after(draft: Draft) -> None:
    """What is to run before becomes ``dependsOn``, where it is a group."""
    for name, group in draft.groups.items():
        needed: dict[str, bool] = {}
        said = group.fields.get("dependsOn")
        for key in said if isinstance(said, list) else ():
            needed[str(key)] = False
        for one in group.after:
            keys = [key for key in draft.named.get(one.name, ()) if key != name]
            if not keys and one.left_out:
                draft.source = group.source
                draft.note(one.left_out, one.line or group.line)
            for key in keys:
                is_job = draft.groups[key].fields.get("job") is True
                needed[key] = needed.get(key, False) or is_job
        for key in _waited_for(draft, group, name):
            needed.setdefault(key, draft.groups[key].fields.get("job") is True)
        if any(needed.values()):
            ready: dict[str, object] = {key: {} for key, completed in needed.items() if not completed}
            group.fields["dependsOn"] = {**ready, **{key: "completed" for key, done in needed.items() if done}}
        elif needed:
            group.fields["dependsOn"] = list(needed)


def _waited_for(draft: Draft, group: DraftGroup, name: str) -> list[str]:
    """Groups that ``waitFor`` names as hosts, as services of one compose file do; they leave it."""
    said = group.fields.get("waitFor")
    urls = [str(url) for url in (said["urls"] if isinstance(said, dict) else said if isinstance(said, list) else ())]
    inside = {url: draft.named.get(urlsplit(url).hostname or "", []) for url in urls}
    left = [url for url in urls if not [key for key in inside[url] if key != name]]
    if len(left) == len(urls):
        return []
    if not left:
        del group.fields["waitFor"]
    else:
        group.fields["waitFor"] = {**said, "urls": left} if isinstance(said, dict) else left
    return [key for url in urls for key in inside[url] if key != name]


def _budget(draft: Draft, found: Settled) -> None:
    """spec.concurrency, where a group autoscales: the most that all groups together had before."""
    if not any("autoscale" in group.fields for group in draft.groups.values()):
        return
    for name, group in draft.groups.items():
        part, pool = group.fields.get("autoscale"), group.fields.get("pool")
        if isinstance(part, dict):
            found.concurrency += int(part["max"])
            continue
        if not group.is_celery:
            continue
        slots = pool.get("concurrency") if isinstance(pool, dict) else 1 if pool == "solo" else None
        replicas = group.fields.get("replicas", 1)
        if isinstance(slots, int) and isinstance(replicas, int):
            found.concurrency += slots * replicas
        else:
            _note(draft, group, f"{name}: its slots are not known: raise spec.concurrency by them")
