"""What the first process of a container must do: reap every orphan, pass signals on, end with its child's exit code."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_CHILD_SUBREAPER = 36
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def begin() -> int | None:
    """Fork. The child gets None and does the work; this process returns the child's exit code once it has ended.

    A child that a signal killed gives 128 plus its number. Call it before any thread is started. The child is in a
    process group of its own, so that Ctrl-C at a terminal reaches it once and not twice.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)  # none may come before it can be passed on
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    for number in _PASSED_ON:
        signal.signal(number, lambda caught, _frame: _pass_on(child, caught))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _reap_until_end_of(child)


def _pass_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return


def _reap_until_end_of(child: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
