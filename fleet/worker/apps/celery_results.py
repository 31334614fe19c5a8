"""Results of a Celery app on Redis, in Celery's own format and by its own rule: each in one round trip, or many in one.

Celery asks what is stored already and then stores, in two round trips, because a later state must not replace a
success (celery/backends/base.py, ``KeyValueStoreBackend._store_result``). A script on the server does both. Whatever it
does not decide, and whatever fails, is left to Celery's own way with its own retries.

A success is only encoded in the slot. The loop stores all that have come in the meantime at once, before it
acknowledges them (:class:`ResultWriter`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from math import inf
from operator import itemgetter
from queue import LifoQueue
from typing import Any

from celery import Celery, states
from celery.backends.base import Backend, KeyValueStoreBackend
from celery.backends.redis import RedisBackend
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from fleet.broker.redis_link import answer_on, command, script
from fleet.worker.apps.deferred_result import deferral_of
from fleet.worker.task.call import EncodedResult

log = logging.getLogger("fleet.worker")

_MOST_CONNECTIONS = 8
"""Storing takes a fraction of a millisecond: hundreds of tasks share these, where the app's own pool would open one
each or, at its limit, fail."""

_WRITE_SECONDS = 5.0
"""The longest wait of the loop for a server that stores results; then slots do it, for a while."""
_LEFT_TO_SLOTS_SECONDS = 10.0

_STORE = script(__package__, "store_results")

_MOST_AT_ONCE = 100
_MOST_BYTES_AT_ONCE = 256 << 10
"""What one run of the script stores at most: the server does nothing else meanwhile."""

_OWN = ("_store_result", "_set_with_state", "set", "_set", "_get_task_meta_for", "get_key_for_task")
"""Methods whose work is done here: a backend that has changed one of them keeps its own way."""


def store_all_at_once(app: Any) -> None:
    """Let all backends of this app do so: Celery makes one for each thread."""
    if "_get_backend" not in vars(app):
        make = app._get_backend

        def made() -> Any:
            backend = make()
            store_at_once(backend)
            return backend

        app._get_backend = made
    store_at_once(app.backend)


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
        self._is_plain: bool | None = None
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
        encoded = self._encoded(task_id, result, state, traceback, request)
        if encoded is None:
            return False
        # A member of a chord counts itself next, and the last one sends the body of the chord.
        may_wait = state == states.SUCCESS and self._success and getattr(request, "chord", None) is None
        if may_wait and (deferral := deferral_of(task_id)) is not None:
            deferral.result = encoded
            return True
        return bool(self._run(encoded))

    def _encoded(self, task_id: Any, result: Any, state: str, traceback: Any, request: Any) -> EncodedResult | None:
        """None for one that is too long: Celery refuses it, with its own error."""
        backend = self._backend
        meta = self._meta(result, state, traceback, request)
        meta["task_id"] = bytes_to_str(task_id)
        value = backend.encode(meta)
        if len(value) > backend._MAX_STR_VALUE_SIZE:
            return None
        expires = getattr(backend, "failure_expires", None) if state == states.FAILURE else None
        seconds = int(backend.expires or 0) if expires is None else int(expires)
        return EncodedResult(backend.get_key_for_task(task_id), value, seconds)

    def _meta(self, result: Any, state: str, traceback: Any, request: Any) -> dict[str, Any]:
        """What Celery's backend makes. It asks the app's settings for each result whether it is to be extended, and
        converts the time between zones; that takes longer than all the rest."""
        backend = self._backend
        if self._is_plain is None:  # not before: a receiver of worker_process_init may change settings
            self._is_plain = _makes_plain_meta(backend)
        if not self._is_plain or state != states.SUCCESS:
            made: dict[str, Any] = backend._get_result_meta(
                result=result, state=state, traceback=traceback, request=request
            )
            return made
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": backend.current_task_children(request),
            "date_done": datetime.now(backend.app.timezone).isoformat(),
        }
        if group := getattr(request, "group", None):
            meta["group_id"] = group
        if parent := getattr(request, "parent_id", None):
            meta["parent_id"] = parent
        return meta

    def _run(self, result: EncodedResult) -> int:
        connection = self._free.get()
        whole = False
        try:
            connection = connection or self._connections.make_connection()
            answer = _evaluate(connection, 1, result.key, self._success, result.value, result.seconds)
            whole = True
            return answer
        finally:
            if connection is not None and not whole:
                connection.disconnect()  # a limit of the task may have come between a question and its answer
            self._free.put(connection)


class ResultWriter:
    """Stores encoded results from the loop of a worker, on one connection."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._success = ""
        self._connection: Any = None
        self._again_at = 0.0

    def store(self, results: Sequence[EncodedResult]) -> Sequence[bool]:
        """Store these; which of them are stored now. After a failure slots store all, for a while."""
        if time.monotonic() < self._again_at:
            return [False] * len(results)
        try:
            return self._answers(results)
        except NoPermissionError as error:
            log.warning("each slot stores its results itself: the result backend refuses to run a script: %s", error)
            self._again_at = inf
        except (RedisError, OSError) as error:
            log.warning("slots store results for %.0f s: %s", _LEFT_TO_SLOTS_SECONDS, error)
            self._again_at = time.monotonic() + _LEFT_TO_SLOTS_SECONDS
        self._hang_up()
        return [False] * len(results)

    def fds(self) -> Sequence[int]:
        """The socket, where there is one."""
        sock = getattr(self._connection, "_sock", None)
        return [sock.fileno()] if sock is not None else []

    def _answers(self, results: Sequence[EncodedResult]) -> list[bool]:
        connection = self._connection or self._connect()
        commands = [_command(batch, self._success) for batch in _batches(results)]
        connection.send_packed_command(commands, check_health=False)
        answers = [answer_on(connection) for _ in commands]
        if any(isinstance(answer, NoScriptError) for answer in answers):
            connection.send_command("SCRIPT", "LOAD", _STORE.text)
            connection.read_response()
            return self._answers(results)  # what was stored is not replaced
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return [True] * len(results)  # also where a success was there already

    def _connect(self) -> Any:
        backend = self._app.backend
        self._success = _look_of_success(backend)
        connection = backend.client.connection_pool.make_connection()
        for name in ("socket_timeout", "socket_connect_timeout"):
            seconds = getattr(connection, name, None)
            setattr(connection, name, min(seconds or _WRITE_SECONDS, _WRITE_SECONDS))
        connection.connect()
        self._connection = connection
        return connection

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _command(results: Sequence[EncodedResult], success: str) -> bytes:
    """That stores these."""
    keys = [result.key for result in results]
    values = chain.from_iterable(map(_value_and_seconds, results))
    return command(b"EVALSHA", _STORE.sha, len(keys), *keys, success, *values)


_value_and_seconds = itemgetter(1, 2)


def _batches(results: Sequence[EncodedResult]) -> Iterator[Sequence[EncodedResult]]:
    first = size = 0
    for index, result in enumerate(results):
        size += len(result.value)
        if index > first and (index - first >= _MOST_AT_ONCE or size > _MOST_BYTES_AT_ONCE):
            yield results[first:index]
            first, size = index, len(result.value)
    yield results[first:]


def _evaluate(connection: Any, *arguments: Any) -> int:
    try:
        return _ask(connection, b"EVALSHA", _STORE.sha, *arguments)
    except NoScriptError:
        return _ask(connection, b"EVAL", _STORE.text, *arguments)


def _ask(connection: Any, *words: Any) -> int:
    connection.send_packed_command([command(*words)], check_health=False)
    return int(connection.read_response())


def _makes_plain_meta(backend: Any) -> bool:
    """Whether what it keeps of a success is what Celery's own makes without ``result_extended``."""
    app = backend.app
    is_celerys = getattr(type(backend), "_get_result_meta", None) is Backend._get_result_meta
    is_celerys = is_celerys and type(app).now is Celery.now and "now" not in vars(app)
    return is_celerys and not app.conf.find_value_for_key("extended", "result")


def _look_of_success(backend: Any) -> str:
    """What only the stored form of a success holds, as far as one can tell; empty where a serializer hides it."""
    look = f'"status": "{states.SUCCESS}"'
    try:
        encoded = backend.encode({"status": states.SUCCESS})
    except Exception:
        return ""
    return look if isinstance(encoded, str) and look in encoded else ""
