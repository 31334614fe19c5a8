"""The short way through Celery's tracer shows what Celery's own shows: both run the same tasks here, side by side."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, Task, signals
from celery._state import _task_stack, get_current_worker_task
from celery.app import trace
from celery.exceptions import Ignore, Reject, Retry
from hypothesis import given
from hypothesis import strategies as st
from kombu.exceptions import EncodeError, OperationalError

from fleet.worker.apps import celery_plain
from fleet.worker.apps.celery import _TraceInfo
from fleet.worker.apps.celery_plain import plain_tracer
from pools.errors import SoftTimeLimit

app = Celery("plain", broker="memory://", set_as_current=False)
app.conf.task_ignore_result = True

seen: list[Any] = []


class Hooked(Task):  # type: ignore[misc]
    """Its hooks for failures tell what they were given."""

    def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        seen.append(("on_failure", repr(exc), task_id, args, kwargs, type(einfo), self.request.id))

    def on_retry(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        seen.append(("on_retry", repr(exc), task_id, args, kwargs, type(einfo), self.request.id))


class Broken(Task):  # type: ignore[misc]
    """Its hook for failures fails."""

    def on_failure(self, exc: Any, *_: Any) -> None:
        raise LookupError(f"no hook for {exc!r}")


class Unpicklable(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one}{two}")


LOCK = threading.Lock()
ERRORS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("as asked"),
    "expected": lambda: KeyError("known"),
    "unpicklable": lambda: Unpicklable(1, LOCK),
    "retry": lambda: Retry("again", exc=ValueError("cause"), when=3),
    "retry without a cause": lambda: Retry("again"),
    "reject": lambda: Reject("no", requeue=False),
    "requeue": lambda: Reject("no", requeue=True),
    "ignore": lambda: Ignore("never mind"),
    "memory": lambda: MemoryError("full"),
    "soft limit": lambda: SoftTimeLimit("too long"),
    "exit": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt(),
    "stop": lambda: StopIteration(5),
}


def look(task: Any) -> None:
    """What a task can learn about its run."""
    fields = {name: value for name, value in vars(task.request).items() if name != "args"}
    stacks = (len(_task_stack), len(task.request_stack), _task_stack.top.name, get_current_worker_task().name)
    seen.append((fields, list(task.request.args), stacks, task.request.called_directly, task.request.headers))


@app.task(name="gives", bind=True)
def gives(self: Any, *args: Any, **kwargs: Any) -> Any:
    look(self)
    return args, kwargs


@app.task(name="raises", bind=True, base=Hooked, throws=(KeyError,))
def raises(self: Any, how: str, **_: Any) -> None:
    look(self)
    raise ERRORS[how]()


@app.task(name="broken", bind=True, base=Broken)
def broken(self: Any, how: str = "error") -> None:
    look(self)
    raise ERRORS[how]()


@app.task(name="calls", bind=True)
def calls(self: Any, depth: int = 1) -> Any:
    look(self)
    return (self(depth - 1) if depth else gives(1)), self.request.id


@app.task(name="auto", bind=True, autoretry_for=(ValueError,), max_retries=0)
def auto(self: Any) -> None:
    look(self)
    raise ValueError("for good")


@app.task(name="errback")
def errback(request: Any, error: Exception, traceback: Any) -> None:
    seen.append(("errback", request.id, repr(error), own_part(str(traceback))))


@pytest.fixture(scope="module", autouse=True)
def worker() -> Iterator[None]:
    """What Celery changes for a whole process is changed back."""
    app.finalize()
    trace.setup_worker_optimizations(app, "unit@here")
    yield
    trace.reset_worker_optimizations(app)


def usual_tracer(task: Any) -> Any:
    task.__trace__ = trace.build_tracer(task.name, task, app.loader, "unit@here", Info=_TraceInfo, app=app)
    return task.__trace__


def tracers(task: Any, *, lasting: bool = True) -> tuple[Any, Any]:
    """Celery's and ours."""
    task = app.tasks[task.name]
    usual = usual_tracer(task)
    plain = plain_tracer(task, usual, app=app, info=_TraceInfo, lasting=lasting)
    assert plain is not None
    return usual, plain.run


def request_of(task: str, args: Any, kwargs: Any, **more: Any) -> dict[str, Any]:
    headers = {"lang": "py", "task": task, "id": "i", "retries": 0, "timelimit": [None, None], "argsrepr": "shown"}
    info = {"exchange": "", "routing_key": "q", "priority": 3, "redelivered": False}
    embed = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
    return {**headers, "delivery_info": info, "args": args, "kwargs": kwargs, "is_eager": False, **embed, **more}


SIGNALS = (signals.task_failure, signals.task_retry, signals.task_internal_error)


_COMPARED = ("task_id", "exception", "args", "kwargs", "reason")


@contextmanager
def overheard() -> Iterator[list[Any]]:
    """What receivers of signals are told, and what is logged."""
    told: list[Any] = []

    def receiver(sender: Any, signal: Any, **facts: Any) -> None:
        known = {
            name: str(facts[name]) for name in ("task_id", "exception", "args", "kwargs", "reason") if name in facts
        }
        told.append((signal.name, sender.name, known, sorted(facts)))

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = re.sub(r"in [0-9.e-]+s", "in _s", record.getMessage())
            told.append((record.name, record.levelname, own_part(text), bool(record.exc_info)))

    handler = Keeping()
    trace.logger.addHandler(handler)
    for signal in SIGNALS:
        signal.connect(receiver, weak=False, dispatch_uid="overheard")
    try:
        yield told
    finally:
        for signal in SIGNALS:
            signal.disconnect(dispatch_uid="overheard")
        trace.logger.removeHandler(handler)


def own_part(text: str) -> str:
    """A text without the frames of the tracer itself."""
    return re.sub(r'  File "[^"]*/(trace|celery_plain)[.]py", line .*(\n    .*)*', "", text)


def shown(tracer: Any, task: Any, args: Any, kwargs: Any, request: Mapping[str, Any]) -> Any:
    """All that a run shows: how it ended, what the task and its hooks saw, what others were told."""
    seen.clear()
    end: Any
    with overheard() as told, pytest.warns(RuntimeWarning, match="outside body") if task.name == "broken" else _quiet():
        try:
            end = tracer("i", args, kwargs, request)
        except BaseException as error:
            end = ("raised", type(error), str(error))
        else:
            assert end is not None
            info = end.info and (end.info.state, type(end.info.retval), str(end.info.retval))
            value = own_part(end.retval.traceback) if end.info else end.retval
            end = (value, info, end.runtime is None)
    return end, list(seen), told, len(_task_stack), len(task.request_stack)


@contextmanager
def _quiet() -> Iterator[None]:
    yield


def assert_same(task: Any, args: Any, kwargs: Any, request: Mapping[str, Any]) -> Any:
    usual, plain = tracers(task)
    expected = shown(usual, task, args, kwargs, dict(request))
    found = shown(plain, task, args, kwargs, dict(request))
    assert found == expected
    return found


RUNS: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    **{how: (raises, [how], {"more": 1}) for how in ERRORS},
    "a value": (gives, [1, "two", None], {"three": [4]}),
    "nothing": (gives, [], {}),
    "wrong arguments": (raises, [], {"what": 1}),
    "a hook that fails": (broken, [], {}),
    "a call of another task": (calls, [0], {}),
    "a call of itself": (calls, [1], {}),
    "automatic retry": (auto, [], {}),
}


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
@pytest.mark.parametrize("name", RUNS)
def test_each_end_is_the_same(name: str, level: int, caplog: pytest.LogCaptureFixture) -> None:
    task, args, kwargs = RUNS[name]
    with caplog.at_level(level, trace.logger.name):
        end, saw, told, tasks, requests = assert_same(task, args, kwargs, request_of(task.name, args, kwargs))
    assert (tasks, requests) == (0, 0)
    assert end or told
    assert saw or name == "wrong arguments"


REQUESTS: dict[str, dict[str, Any]] = {
    "a header of the sender's": {"x-mine": 1, "another": {"a": 2}},
    "headers": {"headers": {"given": 1}},
    "a shadow": {"shadow": "other name"},
    "limits": {"timelimit": [2.5, 1]},
    "no limits": {"timelimit": None},
    "half of the limits": {"timelimit": [1]},
    "ignored": {"ignore_result": True},
    "not ignored, and there is no backend": {"ignore_result": False},
    "errbacks": {"errbacks": [{"task": "errback", "args": [], "kwargs": {}, "options": {}, "immutable": False}]},
    "a group": {"group": "g", "group_index": 2, "root_id": "r", "parent_id": "p"},
    "stamps": {"stamped_headers": ["s"], "stamps": {"s": [1]}},
    "redelivered": {"delivery_info": {"redelivered": True}},
}


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("task", [gives, raises], ids=["value", "error"])
def test_whatever_a_message_says(task: Any, name: str) -> None:
    args = ["error"] if task is raises else [1]
    _, saw, *_ = assert_same(task, args, {}, request_of(task.name, args, {}, **REQUESTS[name]))
    assert saw[0][0]["id"] == "i"
    assert [one for one in saw if one[0] == "errback"] or not (name == "errbacks" and task is raises)


NAMES = st.sampled_from([name for name, value in vars(trace.Context).items() if name[0] != "_" and not callable(value)])
ANY = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=3)


@given(request=st.dictionaries(NAMES | st.text(max_size=5), ANY, max_size=8))
def test_the_request_is_celerys_for_any_message(request: dict[str, Any]) -> None:
    made = celery_plain._context(request, [1], {"a": 2})
    expected = trace.Context(request, args=[1], called_directly=False, kwargs={"a": 2})
    assert vars(made) == vars(expected)


# -- what is left to Celery's tracer


@pytest.mark.parametrize("what", ["callbacks", "chain", "chord"])
def test_a_run_that_something_follows_is_left_to_celery(what: str) -> None:
    _, plain = tracers(gives)
    assert plain("i", [], {}, request_of("gives", [], {}, **{what: [{"task": "next"}]})) is None


@pytest.mark.parametrize("signal", [signals.task_prerun, signals.task_postrun, signals.task_success])
def test_a_run_that_somebody_follows_is_left_to_celery(signal: Any) -> None:
    _, plain = tracers(gives)
    request = request_of("gives", [], {})
    signal.connect(_receiver, dispatch_uid="here")
    try:
        assert plain("i", [], {}, request) is None
    finally:
        signal.disconnect(dispatch_uid="here")
    assert plain("i", [], {}, request) is not None


def _receiver(**_: Any) -> None:
    pass


def test_a_run_within_a_run_is_left_to_celery() -> None:
    _, plain = tracers(gives)
    gives.push_request(id="outer")
    try:
        assert plain("i", [], {}, request_of("gives", [], {})) is None
        assert (len(_task_stack), len(gives.request_stack), gives.request.id) == (0, 1, "outer")
    finally:
        gives.pop_request()


@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize(("task", "args"), [(gives, []), (raises, ["error"])])
def test_nothing_stands_on_the_stacks_after_a_run(task: Any, args: list[str], lasting: bool) -> None:
    _, plain = tracers(task, lasting=lasting)
    assert plain("i", args, {}, request_of(task.name, args, {})) is not None
    assert (len(_task_stack), _task_stack.top, len(task.request_stack), task.request_stack.top) == (0, None, 0, None)
    assert get_current_worker_task() is None


def test_short_lived_threads_leave_no_stacks_behind() -> None:
    _, plain = tracers(gives, lasting=False)
    before = len(list(gives.request_stack._local))
    threads = [threading.Thread(target=plain, args=("i", [], {}, request_of("gives", [], {}))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(gives.request_stack._local)) == before


def test_a_tracer_that_a_tool_has_replaced_is_used() -> None:
    usual, plain = tracers(gives)
    gives.__trace__ = lambda *given: usual(*given)
    assert plain("i", [], {}, request_of("gives", [], {})) is None
    assert plain_tracer(gives, gives.__trace__, app=app, info=_TraceInfo) is None


def nothing() -> None:
    pass


def five() -> int:
    return 5


def hooking(name: str) -> type:
    return type("Hooking", (Task,), {name: lambda *_, **__: None})


@pytest.mark.parametrize("hook", ["before_start", "on_success", "after_return", "__call__"])
def test_a_task_with_hooks_is_left_to_celery(hook: str) -> None:
    made = Celery("hooks", set_as_current=False)
    task = made.task(name="t", shared=False, base=hooking(hook))(nothing)
    made.finalize()
    assert plain_tracer(task, usual_tracer(task), app=made, info=_TraceInfo) is None


@pytest.mark.parametrize(
    ("backend", "settings", "is_plain"),
    [
        (None, {}, True),
        ("redis://nowhere", {}, True),
        ("cache+memory://", {}, False),
        ("nothing://", {}, False),
        (None, {"worker_deduplicate_successful_tasks": True}, False),
    ],
)
def test_backends_that_may_do_more_are_left_to_celery(backend: Any, settings: dict[str, Any], is_plain: bool) -> None:
    made = Celery("backends", backend=backend, set_as_current=False)
    made.conf.update(settings)
    task = made.task(name="t", shared=False)(nothing)
    made.finalize()
    usual = trace.build_tracer  # building one asks some of these backends, which is not what is tested
    assert (plain_tracer(task, _tracer_of(usual), app=made, info=_TraceInfo) is not None) is is_plain


def _tracer_of(build: Any) -> Any:
    return build(gives.name, gives, app.loader, "unit@here", app=app)


def storing(**settings: Any) -> tuple[Any, Any, Any]:
    """A task of an app that keeps its results on Redis, with Celery's tracer and ours; Redis is not asked."""
    made = Celery("results", backend="redis://nowhere", set_as_current=False)
    made.conf.update(settings)
    task = made.task(name="t", shared=False)(five)
    made.finalize()
    usual = task.__trace__ = trace.build_tracer("t", task, made.loader, "unit@here", Info=_TraceInfo, app=made)
    plain = plain_tracer(task, usual, app=made, info=_TraceInfo)
    assert plain is not None
    assert plain.may_store
    return task, usual, plain.run


STORE_ERRORS: dict[str, Exception | None] = {
    "stored": None,
    "cannot be encoded": EncodeError("no JSON"),
    "no connection": OperationalError("down"),
    "broken": LookupError("of the backend"),
}


@pytest.mark.parametrize("how", STORE_ERRORS)
@pytest.mark.parametrize("ignored", [True, False, None])
def test_results_are_stored_as_celery_stores_them(ignored: bool | None, how: str) -> None:
    task, usual, plain = storing()
    calls: list[Any] = []

    def store(task_id: str, result: Any, state: str, request: Any = None, **more: Any) -> None:
        calls.append((task_id, repr(result), state, request.id, sorted(more), len(task.request_stack)))
        if state == "SUCCESS" and (error := STORE_ERRORS[how]) is not None:
            raise error

    task.backend.store_result = store
    found = []
    for tracer in (usual, plain):
        with warnings.catch_warnings():  # what Celery says over a backend that fails
            warnings.simplefilter("ignore", RuntimeWarning)
            told = tracer("i", [], {}, request_of("t", [], {}, ignore_result=ignored))
        end = told.info and (told.info.state, repr(told.info.retval))
        found.append((end, told.retval if end is None else None, calls.copy()))
        calls.clear()
    assert found[0] == found[1]
    assert bool(found[0][2]) is not bool(ignored)


def test_a_run_whose_start_is_stored_is_left_to_celery() -> None:
    _, _, plain = storing(task_track_started=True)
    assert plain("i", [], {}, request_of("t", [], {})) is None
    assert plain("i", [], {}, request_of("t", [], {}, ignore_result=True)) is not None


def test_another_version_of_celery_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = usual_tracer(gives)
    monkeypatch.setattr(celery_plain, "_FOLLOWED", (5, 6))
    assert plain_tracer(gives, usual, app=app, info=_TraceInfo) is None
