"""Finds the class of a pool by its name, and imports it only then."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from pools.base import BasePool
from pools.errors import PoolUnavailable
from pools.traits import TRAITS

CUSTOM_POOL_VARIABLES = ("FLEET_CUSTOM_WORKER_POOL", "CELERY_CUSTOM_WORKER_POOL")
"""Environment variables that name the class of the pool ``custom``; the first one that is set wins."""

_CLASSES: Mapping[str, str] = {
    "solo": "pools.solo:SoloPool",
    "prefork": "pools.prefork:PreforkPool",
    "threads": "pools.threads:ThreadsPool",
    "gevent": "pools.gevent:GeventPool",
    "eventlet": "pools.eventlet:EventletPool",
    "asyncio": "pools.asyncio:AsyncioPool",
}
_ALIASES: Mapping[str, str] = {"processes": "prefork"}


def get_pool(name: str, limit: int = 1, **options: Any) -> BasePool:
    """A new pool of this kind with this many slots: a name of ``TRAITS``, or ``module:Class`` for one of your own."""
    return pool_class(name)(limit, **options)


def pool_class(name: str) -> type[BasePool]:
    """The class behind a name or ``module:Class``. PoolUnavailable says what is missing."""
    name = _ALIASES.get(name, name)
    if ":" in name:
        return _load(name)
    if name in _CLASSES:
        return _load(_CLASSES[name])
    if name == "custom":
        return _load(_custom_path())
    if name in TRAITS:
        raise PoolUnavailable(
            f"the pool {name!r} is not part of this version",
            hint=f"use one of: {', '.join(_CLASSES)}, or module:Class for one of your own",
        )
    raise PoolUnavailable(f"unknown pool {name!r}", hint=_suggestion(name))


def available() -> tuple[str, ...]:
    """The names whose pools are installed, in the order people read them; none of their libraries is imported.

    A green one also needs a patched process.
    """
    return tuple(name for name in TRAITS if _is_available(name))


def _is_available(name: str) -> bool:
    if name == "custom":
        return any(os.environ.get(variable) for variable in CUSTOM_POOL_VARIABLES)
    library = TRAITS[name].library
    return not library or importlib.util.find_spec(library) is not None


def _custom_path() -> str:
    for variable in CUSTOM_POOL_VARIABLES:
        if path := os.environ.get(variable):
            return path
    raise PoolUnavailable(
        "the pool 'custom' needs a class",
        hint=f"name it as module:Class, or set {' or '.join(CUSTOM_POOL_VARIABLES)}",
    )


def _load(path: str) -> type[BasePool]:
    module_name, _, class_name = path.partition(":")
    if not module_name or not class_name:
        raise PoolUnavailable(f"{path!r} does not name a pool class", hint="write it as module:Class")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise PoolUnavailable(
            f"cannot import the pool {path!r}: {error}", hint="is its library installed, and the path spelled right?"
        ) from error
    if isinstance(found, type) and issubclass(found, BasePool):
        return found
    from pools import celery_pool

    if celery_pool.is_celery_pool(found):
        return celery_pool.adapt(found)
    raise PoolUnavailable(f"{path!r} is not a pool class", hint="derive it from pools.BasePool, or from Celery's")


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, TRAITS, n=1)
    known = f"known: {', '.join(sorted(TRAITS))}"
    return f"did you mean {close[0]!r}? {known}" if close else known
