"""``python -m fleet.worker.probe module:attr``: import an app as a worker would and say what it is, as JSON on stdout.

Exit code 0: ``{"kind", "pool", "concurrency", "queues", "tasks", "transportOptions"}``. Exit code 1: ``{"error",
"hint"}``.
Whatever the app prints while it is imported goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from fleet.errors import FleetError
from fleet.worker.apps.load import import_object, is_celery, wrap

_LAYOUT_OPTIONS = ("global_keyprefix", "sep", "priority_steps")


def probe(path: str) -> dict[str, Any]:
    """The facts of the app at ``module:attr``, as in the document above. Raises FleetError."""
    found = import_object(path)
    application = wrap(found, path)
    pool, concurrency = _celery_settings(found) if is_celery(found) else (None, None)
    return {
        "kind": application.kind,
        "pool": pool,
        "concurrency": concurrency,
        "queues": list(application.default_queues()),
        "tasks": list(application.task_names()),
        "transportOptions": _layout(application.transport_options(None)),
    }


def _layout(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those transport options that say where queues lie; others may not even be JSON."""
    return {name: options[name] for name in _LAYOUT_OPTIONS if name in options}


def _celery_settings(app: Any) -> tuple[str | None, int | None]:
    """``worker_pool`` and ``worker_concurrency``, None where they are Celery's defaults."""
    app.loader.import_default_modules()
    app.finalize()
    pool = app.conf.worker_pool
    concurrency = app.conf.worker_concurrency
    return (
        None if pool in (None, "", "prefork") else str(pool),
        int(concurrency) if str(concurrency or "").isdigit() else None,
    )


def main(arguments: list[str]) -> int:
    """The command."""
    if len(arguments) != 1:
        print("usage: python -m fleet.worker.probe module:attr", file=sys.stderr)
        return 64
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = probe(arguments[0])
    except FleetError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
