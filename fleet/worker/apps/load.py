"""Finds an app by its name ``module:attr``, and wraps it as an ``Application``."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

from fleet.errors import AppUnusable, FleetError
from fleet.worker.apps.base import Application

_OF_THE_CODE = (ImportError, SyntaxError, NameError, AttributeError, TypeError)
"""What an import raises for an error in the code; others may come from a database that is away for a moment."""


def import_object(path: str) -> object:
    """The object that ``module:attr`` (or ``module``) names. Raises FleetError with what to do about it."""
    module_name, _, attribute = path.partition(":")
    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        kind = AppUnusable if isinstance(error, _OF_THE_CODE) else FleetError
        raise kind(f"the app {path!r} cannot be imported: {error!r}", hint=_import_hint(error)) from error
    if attribute:
        return _attribute(found, path, attribute)
    return _only_app(found) or _only_app(_submodule(path)) or _no_app(found, path)


def load(path: str) -> Application:
    """The app at ``module:attr``, wrapped according to its kind. Raises FleetError."""
    return wrap(import_object(path), path)


def wrap(found: object, path: str) -> Application:
    """An app object as an ``Application``. Raises FleetError for anything that is not an app."""
    from fleet.tasks import Tasks

    if isinstance(found, Tasks):
        from fleet.worker.apps.registry import RegistryApplication

        return RegistryApplication(found)
    if is_celery(found):
        from fleet.worker.apps.celery import CeleryApplication

        return CeleryApplication(found)
    raise AppUnusable(
        f"{path!r} is a {type(found).__name__}, not an app",
        hint="name a Celery app or a fleet.Tasks registry, as module:attr",
    )


def is_celery(found: object) -> bool:
    """Whether this is a Celery app, without importing Celery: an app object exists only if Celery was imported."""
    base = sys.modules.get("celery.app.base")
    return base is not None and isinstance(found, base.Celery)


def _attribute(module: object, path: str, attribute: str) -> object:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = ", ".join(sorted(_apps(module)))
            hint = f"it has {names}" if names else "the module defines no app at all"
            raise AppUnusable(f"the app {path!r} is not there: no attribute {part!r}", hint=hint) from None
    return found


def _only_app(module: object) -> object | None:
    """The app of a module named without ``:attr``: ``app``, ``celery``, ``tasks``, or the only one there is."""
    apps = _apps(module)
    for name in ("app", "celery", "tasks"):
        if name in apps:
            return apps[name]
    return next(iter(apps.values())) if len(apps) == 1 else None


def _submodule(path: str) -> object:
    """``proj.celery`` for ``proj``: the layout that Celery's documentation shows."""
    try:
        return importlib.import_module(f"{path}.celery")
    except ModuleNotFoundError:
        return None


def _no_app(module: object, path: str) -> object:
    raise AppUnusable(
        f"the module {path!r} has {len(_apps(module))} apps, and none is named app, celery or tasks",
        hint=f"say which one: {path}:attribute",
    )


def _apps(module: object) -> dict[str, object]:
    return {name: value for name, value in getattr(module, "__dict__", {}).items() if _is_app(value)}


def _is_app(value: object) -> bool:
    from fleet.tasks import Tasks

    return isinstance(value, Tasks) or is_celery(value)


def _import_hint(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"is {error.name!r} installed for {sys.executable}, and is the working directory right? ({os.getcwd()})"
    return f"the error is the app's own: {_place(error)}"


def _place(error: Exception) -> str:
    """Where it was raised, or where the text is that is no Python."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}, line {last.lineno}"
