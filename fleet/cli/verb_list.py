"""Every verb with one line of help and the module that does it; nothing else, so ``fleet --help`` costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Verb:
    """``module`` below fleet.cli.verbs has two functions: ``<name>_flags(parser)`` and ``<name>(args, out) -> int``."""

    name: str
    help: str
    module: str


CHAPTERS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "write",
        (
            Verb("init", "write a commented manifest and a tasks module to start from", "validate"),
            Verb("validate", "check a manifest: schema, capabilities, budgets; touches nothing", "validate"),
            Verb("explain", "why each group has its slots, replicas and concurrency", "validate"),
            Verb("simulate", "what a load would do to waits and slots, before anything runs", "simulate"),
            Verb("render", "the exact bytes that apply would write", "validate"),
            Verb("schema", "the JSON Schema of a manifest, for editors", "validate"),
        ),
    ),
    (
        "change",
        (
            Verb("plan", "what apply would do, replica by replica, with reasons", "plan"),
            Verb("apply", "plan, confirm, execute, wait until ready", "apply"),
            Verb("scale", "another replica count: in the manifest, or --live for a while", "scale"),
            Verb("restart", "run replicas anew, a few at a time", "steering"),
            Verb("drain", "let groups or replicas stop taking work; they stay", "steering"),
            Verb("pause", "hold groups at zero replicas", "steering"),
            Verb("resume", "undo drain, pause and scale --live", "steering"),
            Verb("rollback", "an earlier revision, as an ordinary plan", "apply"),
            Verb("down", "drain and remove everything this fleet owns", "apply"),
        ),
    ),
    (
        "see",
        (
            Verb("status", "groups and replicas, what they do, and what drifted", "status"),
            Verb("health", "whether replicas live, are ready, make progress: reads their records only", "health"),
            Verb("top", "a live view of the same", "status"),
            Verb("logs", "the logs of all replicas as one", "events"),
            Verb("stacks", "what every thread, greenlet, coroutine and child of a worker does now", "stacks"),
            Verb("history", "the revisions that were applied", "events"),
            Verb("events", "what happened, by whom and why", "events"),
            Verb("doctor", "look for what is broken around a fleet, and mend it with --fix", "doctor"),
        ),
    ),
    (
        "work",
        (
            Verb("send", "enqueue tasks, with a progress bar", "send"),
            Verb("worker", "run one worker by hand, without a manifest", "worker"),
            Verb("controller", "move slots between groups as load comes and goes; apply starts it", "controller"),
        ),
    ),
    (
        "shell",
        (
            Verb("completion", "a completion script for a shell", "version"),
            Verb("version", "the version of fleet", "version"),
        ),
    ),
)

VERBS = MappingProxyType({verb.name: verb for _, verbs in CHAPTERS for verb in verbs})


def overview() -> str:
    """What ``fleet --help`` prints."""
    width = max(map(len, VERBS)) + 2
    lines = ["usage: fleet VERB [MANIFEST…] [flags]      fleet VERB --help tells more", ""]
    lines += ["A running fleet may be named with --fleet NAME instead of a manifest.", ""]
    for title, verbs in CHAPTERS:
        lines += [f"{title}:", *(f"  {verb.name:<{width}}{verb.help}" for verb in verbs), ""]
    lines += ["exit codes: 0 done, 1 error, 2 changes (plan --detailed-exitcode), 3 manifest invalid, 4 not ready,"]
    lines += ["  5 rolled back, 6 paused, 7 stale plan, 8 locked, 9 refused by a guard, 10 unreachable, 64 usage"]
    return "\n".join(lines)
