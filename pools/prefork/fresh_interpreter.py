"""What grows in a fresh interpreter: a slot of its own (spawn), or the zygote that slots are forked from (forkserver).

Both are told by a letter, the first thing on their socket, who they are to be.
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
from pools.prefork.child import INIT_FAILED_EXIT_CODE, Runner, Upbringing, set_title
from pools.prefork.exit import reap
from pools.prefork.fork import become_slot, describe_program, fork_child, resemble_program
from pools.prefork.parent_link import Cradle
from pools.prefork.protocol import INIT_FAILED, TASK_HEAD, WORKER_UP, dump_failure, read_task, send_report

SLOT = "pools.prefork.fresh_interpreter:grow_slot"
ZYGOTE = "pools.prefork.fresh_interpreter:grow_zygote"

REQUEST = struct.Struct("<BQ")
"""To the zygote: BIRTH and the index of the slot, with the child's descriptors; or REAP and a pid."""
ANSWER = struct.Struct("<qqi")
"""From the zygote: the pid and the exit code, or 0 and an errno. Pid 0 without an errno: it still lives."""
BIRTH = 1
REAP = 2


def write_letter(upbringing: Upbringing) -> bytes:
    """All that a fresh interpreter must know. Unpicklable when it cannot travel."""
    try:
        body = pickle.dumps(upbringing, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unpicklable(
            f"what the children are to be told cannot be sent to them: {error}",
            hint="with start methods other than fork, initializer, finalizer and preload are functions of modules",
        ) from error
    return pickle.dumps((describe_program(), body), pickle.HIGHEST_PROTOCOL)


def letter_head(letter: bytes) -> bytes:
    """What goes before it on the socket."""
    return TASK_HEAD.pack(len(letter), 0)


def _read_letter(sock: socket.socket) -> Upbringing:
    letter = read_task(sock)
    if letter is None:
        raise ConnectionError("the parent hung up before it said what to do")
    program, body = pickle.loads(letter[1])
    resemble_program(program)
    upbringing: Upbringing = pickle.loads(body)
    if upbringing.preload is not None:
        upbringing.preload()
    return upbringing


# -- spawn


def grow_slot(fds: list[int], dies_with_parent_thread: bool, index: int) -> NoReturn:
    """Be a child, from nothing."""
    cradle = Cradle.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    become_slot(partial(_live, index, partial(_read_letter, cradle.socket)), cradle, index)


def _live(index: int, learn: partial[Upbringing], cradle: Cradle) -> None:
    Runner(cradle, index, learn).live()


# -- forkserver


def grow_zygote(fds: list[int], dies_with_parent_thread: bool, _: int) -> NoReturn:
    """Import what the children need, run nothing, and fork when asked to. EOF from the parent is the end."""
    cradle = Cradle.from_fds(fds, dies_with_parent_thread=dies_with_parent_thread)
    code = INIT_FAILED_EXIT_CODE
    try:
        _settle(cradle)
        upbringing = _ripen(cradle.socket)
        while _answer(cradle, upbringing):
            pass
        code = 0
    finally:
        os._exit(code)


def _settle(cradle: Cradle) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    cradle.bind_to_parent()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, lambda *_: None)  # not SIG_IGN, which the children's programs would inherit
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _ripen(sock: socket.socket) -> Upbringing:
    try:
        upbringing = _read_letter(sock)
    except BaseException as error:
        send_report(sock, INIT_FAILED, 0, 0.0, 0.0, 0, dump_failure(error, traceback.format_exc()))
        raise
    if upbringing.title:
        set_title(f"{upbringing.title} zygote")
    gc.collect()
    gc.freeze()  # what is here now is shared with every child for good
    send_report(sock, WORKER_UP, 0, 0.0, 0.0, 0, b"")
    return upbringing


def _answer(own: Cradle, upbringing: Upbringing) -> bool:
    try:
        head, fds, _, _ = socket.recv_fds(own.socket, REQUEST.size, 3)
    except ConnectionResetError:
        return False
    if not head:
        return False
    kind, number = REQUEST.unpack(head)
    try:
        answer = (*_bear(own, upbringing, number, fds), 0) if kind == BIRTH else (*_reap(number), 0)
    except OSError as error:
        answer = (0, 0, error.errno or errno.EIO)
    own.socket.sendall(ANSWER.pack(*answer))
    return True


def _bear(own: Cradle, upbringing: Upbringing, index: int, fds: list[int]) -> tuple[int, int]:
    cradle = Cradle.from_fds(fds)
    try:
        return fork_child(partial(_leave_zygote, own, upbringing, index), cradle, index), 0
    finally:
        cradle.close()


def _leave_zygote(own: Cradle, upbringing: Upbringing, index: int, cradle: Cradle) -> None:
    own.close()
    Runner(cradle, index, lambda: upbringing).live()


def _reap(pid: int) -> tuple[int, int]:
    gone, code = reap(pid)
    if gone and code is None:
        raise ChildProcessError(errno.ECHILD, "no child of this zygote")
    return (pid if gone else 0), code or 0
