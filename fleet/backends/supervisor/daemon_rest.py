"""Inside supervisord: it sleeps until something happens while nothing is due, and wakes at once for every signal.

By itself it wakes once a second, looks at all its processes, and only then hears of one that has ended: Python goes on
with an interrupted wait. Here each signal, the end of a child among them, makes a pipe readable that it waits for.
While all processes are as they are to stay, it need not wake for the time either.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from supervisor.states import ProcessStates, SupervisorStates

REST_SECONDS = 30.0
SETTLED_SECONDS = 5.0
"""So long after its end a process that has ended for good may still be about to be started again."""
_STAYS = frozenset({ProcessStates.RUNNING, ProcessStates.STOPPED, ProcessStates.FATAL})
_listens_on: list[int] = []


def install(supervisord: Any) -> None:
    """Let this daemon rest from now on. Once for each time that it has read its configuration."""
    options = supervisord.options
    socket_map = options.get_socket_map()
    for descriptor in _listens_on:  # a daemon that reads its configuration again closes what it does not know
        socket_map.pop(descriptor, None)
    listen, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _listens_on[:] = [listen]
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    socket_map[listen] = Signals(listen)
    if not isinstance(options.poller, RestingPoller):
        options.poller = RestingPoller(options.poller, lambda: rests(supervisord, socket_map))


def rests(supervisord: Any, socket_map: Mapping[int, Any], *, now: float | None = None) -> bool:
    """Whether nothing is due by the clock: every process stays as it is, and no answer of a call waits for one."""
    options = supervisord.options
    if options.mood < SupervisorStates.RUNNING or options.signal_receiver._signals_recvd:  # it takes one at a time
        return False
    if any(getattr(one, "delay", 0) for one in list(socket_map.values())):
        return False
    return all(_stays(one, time.time() if now is None else now) for one in _processes(supervisord))


def _processes(supervisord: Any) -> Iterable[Any]:
    return (one for group in supervisord.process_groups.values() for one in group.processes.values())


def _stays(process: Any, now: float) -> bool:
    state = process.get_state()
    if state == ProcessStates.EXITED:
        return bool(now - process.laststop > SETTLED_SECONDS)
    if state == ProcessStates.STOPPED and not process.laststart:  # it was added, and is about to be started
        return not process.config.autostart
    return state in _STAYS


class RestingPoller:
    """supervisord's own poller, which waits longer while ``rests`` says so."""

    def __init__(self, poller: Any, rests: Callable[[], bool]) -> None:
        self._poller = poller
        self._rests = rests

    def poll(self, timeout: float) -> Any:
        """What is readable and what is writable, as soon as anything is."""
        return self._poller.poll(max(timeout, REST_SECONDS) if self._rests() else timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class Signals:
    """Among supervisord's sockets: readable when a signal has come. supervisord then looks what it was."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def readable(self) -> bool:
        """Always waited for."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_read_event(self) -> None:
        """Take what is there."""
        try:
            while len(os.read(self._descriptor, 512)) == 512:
                pass
        except BlockingIOError:
            pass

    def handle_error(self) -> None:
        """Nothing to close."""
