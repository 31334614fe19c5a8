"""What a fresh interpreter becomes: one slot (spawn), or the zygote that slots are forked from (forkserver).

The start message, the first thing on its socket, carries the options and what is needed to import the program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import socket
import struct
import traceback
from functools import partial
from typing import NoReturn

from pools.errors import Unpicklable
from pools.freeze import freeze_for_forks
from pools.prefork.child import INIT_FAILED_EXIT_CODE, ChildOptions, ChildProcess, set_title
from pools.prefork.exit import reap
from pools.prefork.fork import be_slot_process, describe_program, fork_child, take_on_program
from pools.prefork.parent_link import ChildEnds
from pools.prefork.protocol import INIT_FAILED, TASK_HEAD, WORKER_UP, dump_failure, read_task, send_report

SLOT = "pools.prefork.fresh_interpreter:run_slot"
ZYGOTE = "pools.prefork.fresh_interpreter:run_zygote"

REQUEST = struct.Struct("<BQ")
"""To the zygote: FORK and the index of a slot, together with ``ChildEnds.fds``; or REAP and a pid."""
ANSWER = struct.Struct("<qqi")
"""From the zygote: pid, exit code, errno. An errno: the request failed. Pid 0 and no errno: the child still lives."""
FORK = 1
REAP = 2


def make_start_message(options: ChildOptions) -> bytes:
    """A pickle of ``(program, options)`` for a fresh interpreter. Unpicklable when the options cannot be pickled."""
    try:
        body = pickle.dumps(options, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unpicklable(
            f"what the children are to be told cannot be sent to them: {error}",
            hint="with start methods other than fork, initializer, finalizer and preload are functions of modules",
        ) from error
    return pickle.dumps((describe_program(), body), pickle.HIGHEST_PROTOCOL)


def start_message_head(start_message: bytes) -> bytes:
    """The bytes that go before the message on the socket."""
    return TASK_HEAD.pack(len(start_message), 0)


def _read_start_message(sock: socket.socket) -> ChildOptions:
    start_message = read_task(sock)
    if start_message is None:
        raise ConnectionError("the parent hung up before it said what to do")
    program, body = pickle.loads(start_message[1])
    take_on_program(program)
    options: ChildOptions = pickle.loads(body)
    if options.preload is not None:
        options.preload()
    return options


# -- spawn


def run_slot(fds: list[int], dies_with_parent_thread: bool, index: int) -> NoReturn:
    """The main function of a spawned child. fds: in the order of ``ChildEnds.fds``."""
    child_ends = ChildEnds.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    be_slot_process(partial(_run_child, index, partial(_read_start_message, child_ends.socket)), child_ends, index)


def _run_child(index: int, read_options: partial[ChildOptions], child_ends: ChildEnds) -> None:
    ChildProcess(child_ends, index, read_options).run()


# -- forkserver


def run_zygote(fds: list[int], dies_with_parent_thread: bool, _: int) -> NoReturn:
    """The main function of the zygote: import the program, run no task, fork when asked, and exit at EOF.

    fds: in the order of ``ChildEnds.fds``.
    """
    child_ends = ChildEnds.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    code = INIT_FAILED_EXIT_CODE
    try:
        _set_up_process(child_ends)
        options = _prepare(child_ends.socket)
        while _answer(child_ends, options):
            pass
        code = 0
    finally:
        os._exit(code)


def _set_up_process(child_ends: ChildEnds) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    child_ends.bind_to_parent()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, lambda *_: None)  # not SIG_IGN, which the children's programs would inherit
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _prepare(sock: socket.socket) -> ChildOptions:
    try:
        options = _read_start_message(sock)
    except BaseException as error:
        send_report(sock, INIT_FAILED, 0, 0.0, 0.0, 0, dump_failure(error, traceback.format_exc()))
        raise
    if options.title:
        set_title(f"{options.title} zygote")
    freeze_for_forks()
    send_report(sock, WORKER_UP, 0, 0.0, 0.0, 0, b"")
    return options


def _answer(own: ChildEnds, options: ChildOptions) -> bool:
    try:
        head, fds, _, _ = socket.recv_fds(own.socket, REQUEST.size, 4)
    except ConnectionResetError:
        return False
    if not head:
        return False
    kind, number = REQUEST.unpack(head)
    try:
        answer = (*_start_child(own, options, number, fds), 0) if kind == FORK else (*_reap(number), 0)
    except OSError as error:
        answer = (0, 0, error.errno or errno.EIO)
    own.socket.sendall(ANSWER.pack(*answer))
    return True


def _start_child(own: ChildEnds, options: ChildOptions, index: int, fds: list[int]) -> tuple[int, int]:
    child_ends = ChildEnds.from_fds(fds)
    try:
        return fork_child(partial(_leave_zygote, own, options, index), child_ends, index), 0
    finally:
        child_ends.close()


def _leave_zygote(own: ChildEnds, options: ChildOptions, index: int, child_ends: ChildEnds) -> None:
    own.close()
    ChildProcess(child_ends, index, lambda: options).run()


def _reap(pid: int) -> tuple[int, int]:
    gone, code = reap(pid)
    if gone and code is None:
        raise ChildProcessError(errno.ECHILD, "no child of this zygote")
    return (pid if gone else 0), code or 0
