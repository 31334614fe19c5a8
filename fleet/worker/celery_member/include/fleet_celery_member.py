"""What ``celery worker -I`` imports: it joins the worker to its fleet, or says why not and leaves the worker as it is.

The app's interpreter reads it, which may have no fleet installed and may be older than fleet's own: nothing newer than
Python 3.8 stands here, and nothing outside the standard library is imported before it is known to be there.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

AWAITED_OFFSET = 251
"""Of the byte in a launcher's record that says: the program will write a record of its own."""

_FLEET = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_MEMBER = "fleet.worker.celery_member.steps"


def join() -> None:
    """Join this process to its fleet. Whatever fails is a line in the log, and the worker runs as without fleet; or it
    ends, where the manifest says what only this module can apply."""
    if os.environ.get("FLEET_PID") != str(os.getpid()):
        return  # a child of the worker, which has a record already
    loaded = set(sys.modules)
    try:
        _find_fleet()
        importlib.import_module(_MEMBER).join()
    except Exception as error:
        for name in set(sys.modules) - loaded:
            if name.partition(".")[0] == "fleet":
                del sys.modules[name]
        _give_up(error)
        _refuse(error)


def _refuse(error: Exception) -> None:
    """Without its fleet the worker would not do what the manifest says of messages, and nobody would see it."""
    fields = {"FLEET_TASK_ACKS": "task.acks", "FLEET_VISIBILITY_TIMEOUT": "spec.broker.visibilityTimeout"}
    given = [field for name, field in fields.items() if name in os.environ]
    if given:
        what = " and ".join(given)
        sys.stderr.write(f"fleet: this worker cannot follow {what} of its manifest: set it in the app ({error})\n")
        raise SystemExit(1)


def _find_fleet() -> None:
    """Make ``import fleet`` find fleet: the one that is installed for the app, else the one that started this worker.

    An app may have a module of that name; then it keeps it, and nothing of it is imported here.
    """
    found = importlib.util.find_spec("fleet")
    if found is None:
        made = importlib.util.spec_from_file_location(
            "fleet", os.path.join(_FLEET, "__init__.py"), submodule_search_locations=[_FLEET]
        )
        if made is None or made.loader is None:
            raise ImportError("fleet is not at " + _FLEET)
        sys.modules["fleet"] = module = importlib.util.module_from_spec(made)
        made.loader.exec_module(module)
        return
    parts = _MEMBER.split(".")[1:]
    folders = found.submodule_search_locations or []
    if not any(os.path.isfile(os.path.join(folder, *parts) + ".py") for folder in folders):
        raise ImportError("the app has another module named fleet: " + str(found.origin))


def _give_up(error: Exception) -> None:
    try:
        sys.stderr.write("fleet: this worker keeps no record: %s: %s\n" % (type(error).__name__, error))  # noqa: UP031
        descriptor = os.open(os.environ["FLEET_RECORD"], os.O_RDWR)
    except Exception:
        return  # nobody reads a record that is not there
    try:
        os.pwrite(descriptor, b"\0", AWAITED_OFFSET)
    finally:
        os.close(descriptor)


join()
