"""Pools as other people write them: one for this package, some for Celery."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from celery.concurrency.base import BasePool as CeleryBase
from celery.concurrency.base import apply_target

from pools import BasePool, Handle, Traits


class ExecutorPool(BasePool):
    """On an executor of the standard library, and on nothing of ours but what the base offers to subclasses."""

    traits = Traits("custom", "an executor of the standard library")

    def on_start(self) -> None:
        super().on_start()
        self._local = threading.local()
        self._numbers = itertools.count()
        self._executor = ThreadPoolExecutor(self.limit, initializer=self._number_thread)
        self._futures: dict[Handle, Future[None]] = {}

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - len(self._futures))

    def on_apply(self, handle: Handle, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        future = self._futures[handle] = self._executor.submit(self._run, handle, target, args, kwargs)
        future.add_done_callback(lambda _: self._futures.pop(handle, None))

    def on_cancel(self, handle: Handle) -> bool:
        future = self._futures.get(handle)
        if future is None or not future.cancel():
            return False
        handle.withdraw(0.0)
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in list(self._futures) if self.on_cancel(handle)]

    def on_stop(self) -> None:
        self._executor.shutdown()
        super().on_stop()

    def on_terminate(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _number_thread(self) -> None:
        self._local.slot = next(self._numbers)

    def _run(self, handle: Handle, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.run(handle, target, args, kwargs, slot=self._local.slot)


class CeleryStyle(CeleryBase):  # type: ignore[misc]
    """A pool as Celery's documentation shows it: a thread per task, resizable."""

    signal_safe = False

    def on_start(self) -> None:
        self.threads: set[threading.Thread] = set()
        self.seen: list[str] = ["start"]

    def on_apply(
        self,
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        **_: Any,
    ) -> threading.Thread:
        self.last_options = _
        thread = threading.Thread(
            target=apply_target, args=(target, args, kwargs, callback, accept_callback), daemon=True
        )
        self.threads.add(thread)
        thread.start()
        return thread

    def on_close(self) -> None:
        self.seen.append("close")

    def on_stop(self) -> None:
        self.seen.append("stop")
        for thread in self.threads:
            thread.join()

    def on_terminate(self) -> None:
        self.seen.append("terminate")

    def grow(self, n: int = 1) -> None:
        self.limit += n

    def shrink(self, n: int = 1) -> None:
        self.limit -= n
