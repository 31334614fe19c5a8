"""What grows in a fresh interpreter: a slot of its own (spawn), or the zygote that slots are forked from (forkserver).

Both are told by a start_message, the first thing on their socket, who they are to be.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import signal
import socket
import struct
import traceback
from functools import partial
from typing import NoReturn

from pools.errors import Unpicklable
from pools.prefork.child import INIT_FAILED_EXIT_CODE, ChildOptions, Runner, set_title
from pools.prefork.exit import reap
from pools.prefork.fork import be_slot_process, describe_program, fork_child, take_on_program
from pools.prefork.parent_link import ParentLinkBuilder
from pools.prefork.protocol import INIT_FAILED, TASK_HEAD, WORKER_UP, dump_failure, read_task, send_report

SLOT = "pools.prefork.fresh_interpreter:run_slot"
ZYGOTE = "pools.prefork.fresh_interpreter:run_zygote"

REQUEST = struct.Struct("<BQ")
"""To the zygote: FORK and the index of the slot, with the child's descriptors; or REAP and a pid."""
ANSWER = struct.Struct("<qqi")
"""From the zygote: the pid and the exit code, or 0 and an errno. Pid 0 without an errno: it still lives."""
FORK = 1
REAP = 2


def make_start_message(options: ChildOptions) -> bytes:
    """All that a fresh interpreter must know. Unpicklable when it cannot travel."""
    try:
        body = pickle.dumps(options, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unpicklable(
            f"what the children are to be told cannot be sent to them: {error}",
            hint="with start methods other than fork, initializer, finalizer and preload are functions of modules",
        ) from error
    return pickle.dumps((describe_program(), body), pickle.HIGHEST_PROTOCOL)


def start_message_head(start_message: bytes) -> bytes:
    """What goes before it on the socket."""
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
    """Be a child, from nothing."""
    child_ends = ParentLinkBuilder.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    be_slot_process(partial(_live, index, partial(_read_start_message, child_ends.socket)), child_ends, index)


def _live(index: int, learn: partial[ChildOptions], child_ends: ParentLinkBuilder) -> None:
    Runner(child_ends, index, learn).live()


# -- forkserver


def run_zygote(fds: list[int], dies_with_parent_thread: bool, _: int) -> NoReturn:
    """Import what the children need, run nothing, and fork when asked to. EOF from the parent is the end."""
    child_ends = ParentLinkBuilder.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    code = INIT_FAILED_EXIT_CODE
    try:
        _settle(child_ends)
        options = _prepare(child_ends.socket)
        while _answer(child_ends, options):
            pass
        code = 0
    finally:
        os._exit(code)


def _settle(child_ends: ParentLinkBuilder) -> None:
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
    gc.collect()
    gc.freeze()  # what is here now is shared with every child for good
    send_report(sock, WORKER_UP, 0, 0.0, 0.0, 0, b"")
    return options


def _answer(own: ParentLinkBuilder, options: ChildOptions) -> bool:
    try:
        head, fds, _, _ = socket.recv_fds(own.socket, REQUEST.size, 3)
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


def _start_child(own: ParentLinkBuilder, options: ChildOptions, index: int, fds: list[int]) -> tuple[int, int]:
    child_ends = ParentLinkBuilder.from_fds(fds)
    try:
        return fork_child(partial(_leave_zygote, own, options, index), child_ends, index), 0
    finally:
        child_ends.close()


def _leave_zygote(own: ParentLinkBuilder, options: ChildOptions, index: int, child_ends: ParentLinkBuilder) -> None:
    own.close()
    Runner(child_ends, index, lambda: options).live()


def _reap(pid: int) -> tuple[int, int]:
    gone, code = reap(pid)
    if gone and code is None:
        raise ChildProcessError(errno.ECHILD, "no child of this zygote")
    return (pid if gone else 0), code or 0
