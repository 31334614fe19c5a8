"""Remote control in the loop of a worker whose tasks run elsewhere: attended when a command comes, and in time."""

from __future__ import annotations

from fleet.worker.control.control import Control
from pools.loop import EventLoop, Timer


class ControlInLoop:
    """From ``start`` on in the thread of the loop."""

    def __init__(self, control: Control, loop: EventLoop) -> None:
        self._control = control
        self._loop = loop
        self._watched: list[int] = []
        self._timer: Timer | None = None

    def start(self) -> None:
        """Attend from now on."""
        self._control.before_hanging_up = self._unwatch
        self._control.events.on_first_noted = self._control.on_hung_up = self._set_timer_soon
        self._attend()

    def _attend(self) -> None:
        self._control.attend()
        self._watch()
        self._set_timer()

    def _set_timer_soon(self) -> None:
        self._loop.call_soon_threadsafe(self._set_timer)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        pause = self._control.poll_seconds
        self._timer = None if pause is None else self._loop.call_later(pause, self._attend)

    def _watch(self) -> None:
        fds = self._control.fds()
        if fds != self._watched:
            self._unwatch()
            for fd in fds:
                self._loop.add_reader(fd, self._attend)
            self._watched = fds

    def _unwatch(self) -> None:
        """Call it before its descriptors are closed: the kernel may use their numbers again."""
        for fd in self._watched:
            self._loop.remove_reader(fd)
        self._watched = []
