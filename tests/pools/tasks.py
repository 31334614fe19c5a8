"""What the pools under test are asked to do. Functions of a module, so that they can travel to processes."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from pools import SoftTimeLimit


def add(a: int, b: int = 0) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def leave() -> None:
    sys.exit(7)


def read_input() -> str:
    return sys.stdin.read()


def mark(path: str, text: str = "x") -> int:
    """Append a line to a file: seen by whoever looks, whatever process or thread wrote it."""
    with open(path, "a") as file:
        file.write(text + "\n")
    return os.getpid()


def mark_pid(path: str) -> None:
    """Say who was here."""
    mark(path, str(os.getpid()))


def wait_for(path: str, started: str = "") -> int:
    """Wait until a file exists."""
    if started:
        mark(started, str(os.getpid()))
    while not os.path.exists(path):
        time.sleep(0.005)
    return os.getpid()


def read_pipe(path: str) -> None:
    """One blocking call, until somebody has written and closed."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def sleep_in_kernel(seconds: float, started: str = "") -> None:
    """One system call, with all signals blocked: nothing but KILL ends it early."""
    if started:
        mark(started, str(os.getpid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(seconds)


def die(signum: int) -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signum)
    time.sleep(60)


def die_after_returning(value: Any, gate: str) -> Any:
    """The process dies when the gate is there, and the task has returned long before."""

    def later() -> None:
        wait_for(gate)
        os._exit(9)

    threading.Thread(target=later, daemon=True).start()
    return value


def nap(seconds: float) -> None:
    """Wait in small pieces: a thread can be interrupted between them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.002)


async def sleep_awaiting(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def compute_until(path: str, begun: str = "") -> None:
    """Never awaits: nothing else runs on the loop until the file exists."""
    if begun:
        mark(begun)
    while not os.path.exists(path):
        pass


def compute_until_there(path: str) -> None:
    while not os.path.exists(path):
        pass


def until_soft_limit(cleaned: str = "") -> str:
    """A limit that comes before the ``try`` is not caught."""
    try:
        nap(60)
    except SoftTimeLimit:
        if cleaned:
            mark(cleaned)
        return "cleaned up"
    return "never"


def busy_for(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def square(number: int) -> int:
    return number * number


def squares_in_processes(count: int) -> list[int]:
    """The example this project began with: a task that starts processes of its own."""
    with ProcessPoolExecutor(max_workers=4) as executor:
        return list(executor.map(square, range(count)))


def squares_by_method(method: str, count: int) -> list[int]:
    with ProcessPoolExecutor(max_workers=2, mp_context=multiprocessing.get_context(method)) as executor:
        return list(executor.map(square, range(count)))


def squares_of_loader(method: str, count: int) -> list[int]:
    """As the data loaders of GPU libraries work: a process, queues and an event, all of one context."""
    context = multiprocessing.get_context(method)
    wanted, found, done = context.Queue(), context.Queue(), context.Event()
    process = context.Process(target=_load, args=(wanted, found, done), daemon=True)
    process.start()
    for number in range(count):
        wanted.put(number)
    squares = [found.get() for _ in range(count)]
    done.set()
    wanted.put(None)
    process.join()
    return squares


def _load(wanted: Any, found: Any, done: Any) -> None:
    while (number := wanted.get()) is not None and not done.is_set():
        found.put(number * number)


def shared_by_manager() -> list[int]:
    with multiprocessing.Manager() as manager:
        shared = manager.list([1])
        shared.append(2)
        return list(shared)


def name_and_index() -> tuple[str, int, str, int]:
    """What logs and node names of both libraries read."""
    from billiard.process import current_process

    standard: Any = multiprocessing.current_process()
    return standard.name, standard.index, current_process().name, current_process().index


def terminate_own_process() -> int | None:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    process.terminate()
    process.join()
    return process.exitcode


def claims_to_be_daemon() -> bool:
    return multiprocessing.current_process().daemon


def set_signal_handler() -> str:
    earlier = signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.signal(signal.SIGUSR2, earlier)
    return "main thread"


def run_asyncio() -> int:
    async def main() -> int:
        await asyncio.sleep(0)
        return 42

    return asyncio.run(main())


def fork_and_wait() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def leave_a_sleeper(started: str, then: str = "") -> int:
    """Start a process and do not wait for it."""
    pid = subprocess.Popen(["sleep", "300"]).pid
    mark(started, str(pid))
    if then == "wait":
        time.sleep(300)
    if then == "die":
        os._exit(1)
    return pid


def open_descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def hoard(count: int) -> int:
    """Keep memory for ever; the pid says who."""
    _HOARD.append(bytearray(count))
    return os.getpid()


_HOARD: list[bytearray] = []


def hoard_a_while(count: int, seconds: float) -> int:
    hoard(count)
    time.sleep(seconds)
    return os.getpid()


def borrow(count: int) -> int:
    """Use memory, and give it back."""
    return len(bytearray(count)) and os.getpid()


def eat(gate: str = "") -> None:
    """Ever more memory, until somebody does something about it."""
    if gate:
        wait_for(gate)
    for _ in range(200):  # even where nobody does, the machine survives
        hoard(8 << 20)
        time.sleep(0.01)
    time.sleep(60)


def compute_in_c(started: str) -> None:
    """Minutes in C code that no signal ends: Python's own handlers wait until it returns."""
    mark(started)
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2**30)


def close_everything() -> None:
    os.closerange(3, 100)
    time.sleep(60)


def swallow_everything() -> str:
    """A task that will not be told."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(1)
    return "never"


def make_lambda() -> Callable[[], None]:
    return lambda: None


class PickyError(Exception):
    """Pickles, and then does not load."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raise_picky() -> None:
    raise PickyError(1, 2)


def raise_local() -> None:
    class LocalError(Exception):
        pass

    raise LocalError("nobody knows me elsewhere")


class SlowToLoad:
    """Arrives in another process when the gate is there."""

    def __init__(self, gate: str) -> None:
        self.gate = gate

    def __reduce__(self) -> tuple[Any, ...]:
        return (wait_for, (self.gate,))


class Bomb:
    """Loads nowhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (fail, ("does not load",))


def make_bomb() -> Bomb:
    return Bomb()


def nested_pool() -> int:
    from pools import get_pool

    with get_pool("prefork", 2) as pool:
        return sum(pool.apply_async(square, (number,)).result() for number in range(5))


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


INITIALIZED: list[str] = []


def initialize(word: str) -> None:
    INITIALIZED.append(word)


def initialized() -> list[str]:
    return INITIALIZED


def fail_unless(path: str, births: str) -> None:
    """Says when it was called."""
    mark(births, str(time.monotonic()))
    if not os.path.exists(path):
        raise RuntimeError("not ready yet")


def wait_unless(path: str, births: str) -> None:
    mark(births)
    wait_for(path)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
