"""Results of a Celery app on Redis: each is stored in one round trip, in Celery's own format and by its own rule.

Celery asks what is stored already and then stores, in two round trips, because a later state must not replace a
success (celery/backends/base.py, ``KeyValueStoreBackend._store_result``). A script on the server does both. Whatever it
does not decide, and whatever fails, is left to Celery's own way with its own retries.
"""

from __future__ import annotations

import logging
from queue import LifoQueue
from typing import Any

from celery import states
from celery.backends.base import KeyValueStoreBackend
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from fleet.broker.redis_link import packed, script

log = logging.getLogger("fleet.worker")

_MOST_CONNECTIONS = 8
"""Storing takes a fraction of a millisecond: hundreds of tasks share these, where the app's own pool would open one
each or, at its limit, fail."""

_STORE = script(__package__, "store_result")

_OWN = ("_store_result", "_set_with_state", "set", "_set", "_get_task_meta_for", "get_key_for_task")
"""Methods whose work is done here: a backend that has changed one of them keeps its own way."""


def store_at_once(backend: Any) -> None:
    """Let this backend store results like that, where it is Celery's own for Redis; any other stays as it is."""
    if isinstance(backend, RedisBackend) and _is_celerys_own(type(backend)) and "_store_result" not in vars(backend):
        backend._store_result = _Store(backend)


def _is_celerys_own(kind: type) -> bool:
    own = {name: getattr(RedisBackend, name, None) for name in _OWN}
    stores = KeyValueStoreBackend._store_result
    return RedisBackend._store_result is stores and all(getattr(kind, name, None) is own[name] for name in own)


class _Store:
    """Takes the place of one backend's ``_store_result``. Used by all threads that run tasks."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._usual = backend._store_result
        self._connections = backend.client.connection_pool
        self._free: LifoQueue[Any] = LifoQueue()
        for _ in range(min(_MOST_CONNECTIONS, max(1, self._connections.max_connections // 2))):
            self._free.put(None)
        self._success = _look_of_success(backend)
        self._refused = False

    def __call__(
        self, task_id: Any, result: Any, state: str, traceback: Any = None, request: Any = None, **more: Any
    ) -> Any:
        if not self._refused and not more:
            try:
                if self._stored(task_id, result, state, traceback, request):
                    return result
            except NoPermissionError as error:
                self._refused = True
                log.warning("results are stored in two steps: the result backend refuses to run a script: %s", error)
            except RedisError:
                pass  # of this moment: the usual way tries again, as often as the app's settings say
        return self._usual(task_id, result, state, traceback, request=request, **more)

    def _stored(self, task_id: Any, result: Any, state: str, traceback: Any, request: Any) -> bool:
        backend = self._backend
        meta = backend._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        value = backend.encode(meta)
        if len(value) > backend._MAX_STR_VALUE_SIZE:
            return False  # refused there, with Celery's own error
        expires = getattr(backend, "failure_expires", None) if state == states.FAILURE else None
        seconds = int(backend.expires or 0) if expires is None else int(expires)
        return bool(self._run(backend.get_key_for_task(task_id), value, seconds))

    def _run(self, key: Any, value: Any, seconds: int) -> int:
        connection = self._free.get()
        whole = False
        try:
            connection = connection or self._connections.make_connection()
            answer = _evaluate(connection, 1, key, value, seconds, self._success)
            whole = True
            return answer
        finally:
            if connection is not None and not whole:
                connection.disconnect()  # a limit of the task may have come between a question and its answer
            self._free.put(connection)


def _evaluate(connection: Any, *arguments: Any) -> int:
    try:
        return _ask(connection, b"EVALSHA", _STORE.sha, *arguments)
    except NoScriptError:
        return _ask(connection, b"EVAL", _STORE.text, *arguments)


def _ask(connection: Any, *words: Any) -> int:
    connection.send_packed_command([b"*%d\r\n%b" % (len(words), packed(words))], check_health=False)
    return int(connection.read_response())


def _look_of_success(backend: Any) -> str:
    """What only the stored form of a success holds, as far as one can tell; empty where a serializer hides it."""
    look = f'"status": "{states.SUCCESS}"'
    try:
        encoded = backend.encode({"status": states.SUCCESS})
    except Exception:
        return ""
    return look if isinstance(encoded, str) and look in encoded else ""
