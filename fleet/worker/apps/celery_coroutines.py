"""``async def`` tasks of a Celery app, through Celery's own tracer, which knows no coroutines and would store one.

The body that the tracer calls waits for its coroutine: on the loop of an asyncio pool, with the thread of the tracer
waiting beside it, and in every other pool on a loop of its own.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from typing import Any

from celery._state import _task_stack


def let_body_finish(task: Any, *, green: bool) -> None:
    """Make the body of an ``async def`` task one that the tracer can call. Other callers still get a coroutine."""
    # Celery keeps the function that was decorated aside when it retries automatically, and calls it from there.
    name = "_orig_run" if hasattr(task, "_orig_run") else "run"
    body = getattr(task, name)
    if inspect.iscoroutinefunction(body):
        setattr(task, name, _finishing(task, body, green=green))


def _finishing(task: Any, body: Callable[..., Coroutine[Any, Any, Any]], *, green: bool) -> Callable[..., Any]:
    @wraps(body)
    def finish(*args: Any, **kwargs: Any) -> Any:
        if green and not task.request.called_directly:
            # asyncio allows one running loop per thread, and all greenlets share theirs: two of them would collide.
            raise RuntimeError(f"{task.name} is an async def task, which a pool of greenlets cannot run")
        coroutine = body(*args, **kwargs)
        request = task.request
        if request.called_directly:  # by other code, which awaits it itself
            return coroutine
        from pools.asyncio import complete

        return complete(_as_task(coroutine, task, request))

    return finish


async def _as_task(coroutine: Coroutine[Any, Any, Any], task: Any, request: Any) -> Any:
    return await _with_request(coroutine, task, request)


@types.coroutine
def _with_request(coroutine: Coroutine[Any, Any, Any], task: Any, request: Any) -> Generator[Any, Any, Any]:
    """Each step finds its task and request where Celery looks for them: on stacks of the thread it runs in."""
    step: Callable[[Any], Any] = coroutine.send
    argument: Any = None
    while True:
        _task_stack.push(task)
        task.request_stack.push(request)
        try:
            awaited = step(argument)
        except StopIteration as end:
            return end.value
        finally:
            task.request_stack.pop()
            _task_stack.pop()
        try:
            argument = yield awaited
            step = coroutine.send
        except BaseException as error:
            step, argument = coroutine.throw, error
