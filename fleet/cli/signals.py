"""INT and TERM while a fleet is being changed: the first one stops between two steps, the second one at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from fleet.cli.output import Output
from fleet.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Within ``with``, INT and TERM are numbers to ask for and raise no exception."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._caught) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._number and not isinstance(value, Interrupted):
            self._hand_on(self._before.get(self._number))

    def _hand_on(self, handler: object) -> None:
        """What came too late to stop anything here is for whoever listened before; nobody does in a plain command."""
        if callable(handler) and handler is not signal.default_int_handler:
            handler(self._number, None)

    def number(self) -> int:
        """The first signal that came, or 0."""
        return self._number

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        if self._number:
            raise Interrupted("interrupted at once", hint="run the same command again to resume", signum=number)
        self._number = number
        self._out.say("stopping between two steps; once more stops at once")
