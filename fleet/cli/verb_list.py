"""Every verb with one line of help; nothing else, so ``fleet --help`` costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Verb:
    """Module fleet.cli.verbs.<name> has two functions: ``<name>_flags(parser)`` and ``<name>(args, out) -> int``."""

    name: str
    help: str


CHAPTERS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "write",
        (
            Verb("init", "write a commented manifest and a tasks module to start from"),
            Verb("validate", "check a manifest: schema, capabilities, budgets; touches nothing"),
            Verb("explain", "why each group has its slots, replicas and concurrency"),
            Verb("simulate", "how long tasks would wait under a load, and which slots would move; runs nothing"),
            Verb("render", "the exact bytes that apply would write"),
            Verb("schema", "the JSON Schema of a manifest, for editors"),
        ),
    ),
    (
        "change",
        (
            Verb("plan", "what apply would do, replica by replica, with reasons"),
            Verb("diff", "where what runs differs from the manifest"),
            Verb("apply", "plan, confirm, execute, wait until ready"),
            Verb("scale", "change a replica count: in the manifest, or --live for a while"),
            Verb("restart", "restart replicas, a few at a time"),
            Verb("drain", "let groups or replicas stop taking tasks; they keep running"),
            Verb("pause", "hold groups at zero replicas"),
            Verb("resume", "undo drain, pause and scale --live"),
            Verb("rollback", "go back to an earlier revision, by an ordinary plan"),
            Verb("rollout", "status, pause, resume, promote or abort of a rollout, also of one that was cut short"),
            Verb("migrate", "move groups from this host to a cluster and back, one by one, within one budget"),
            Verb("down", "drain and remove everything this fleet owns"),
        ),
    ),
    (
        "see",
        (
            Verb("status", "groups and replicas, what they do, and what differs from the last apply"),
            Verb("wait", "until a fleet, or some of it, is ready, idle or drained"),
            Verb("health", "whether replicas are alive, ready and making progress; reads their records only"),
            Verb("top", "a live view of the same"),
            Verb("metrics", "numbers for Prometheus: printed, served, or left for node_exporter"),
            Verb("dashboard", "web pages: what runs, waits and happened; acts only where that is allowed"),
            Verb("logs", "the logs of all replicas as one"),
            Verb("stacks", "the stack of every thread, greenlet, coroutine and child of a worker"),
            Verb("history", "the revisions that were applied"),
            Verb("events", "what happened, by whom and why"),
            Verb("notify", "whether notifications arrive; `notify test` sends one to everybody"),
            Verb("doctor", "look for what is broken around a fleet, and fix it with --fix"),
        ),
    ),
    (
        "work",
        (
            Verb("send", "enqueue tasks, with a progress bar"),
            Verb("worker", "run one worker by hand, without a manifest"),
            Verb("sync", "follow a git repository: fetch, verify, plan, apply; and say how far it got"),
            Verb("run", "a fleet in the foreground, from its apply to its drain: for containers and services"),
            Verb("service", "start a fleet with the machine: systemd units"),
            Verb("controller", "heal replicas and move slots between groups; apply starts it"),
        ),
    ),
    (
        "shell",
        (
            Verb("completion", "a completion script for a shell"),
            Verb("version", "the version of fleet"),
        ),
    ),
)

EXIT_CODES = (
    *("0 done", "1 error", "2 changes (plan --detailed-exitcode)", "3 manifest invalid", "4 not ready"),
    *("5 rolled back", "6 paused", "7 stale plan", "8 locked", "9 refused by a guard", "10 unreachable", "64 usage"),
)
"""The first word is the code."""

VERBS = MappingProxyType({verb.name: verb for _, verbs in CHAPTERS for verb in verbs})


def overview() -> str:
    """What ``fleet --help`` prints."""
    width = max(map(len, VERBS)) + 2
    lines = ["usage: fleet VERB [MANIFEST…] [flags]      fleet VERB --help shows its flags", ""]
    lines += ["A running fleet may be named with --fleet NAME instead of a manifest.", ""]
    for title, verbs in CHAPTERS:
        lines += [f"{title}:", *(f"  {verb.name:<{width}}{verb.help}" for verb in verbs), ""]
    lines += [f"exit codes: {', '.join(EXIT_CODES[:5])},", f"  {', '.join(EXIT_CODES[5:])}"]
    return "\n".join(lines)
