"""First process of a replica: reads its 0600 launch document, prepares the process, and becomes the program.

``python -m fleet.launch SPEC DIGEST`` runs under supervisord. It is stdlib-only and quick, because a hundred of them
start at once. In order: end with supervisord; open the replica's own log; wait until no earlier process of the replica
lives; become the replica's account; wait out the back-off of a crash loop or park; wait for what ``waitFor`` names;
exec. The pid stays the
same throughout.

Exit codes: 78 parked (supervisord does not restart it), 127 the program cannot be run, 1 anything else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from fleet.core.desired import BROKER_GROUP
from fleet.core.spec import FLEETS_ACCOUNT, PARKED_EXIT, AccountSpec, LimitsSpec, WorkerSpec
from fleet.core.text.mask import masked
from fleet.errors import FleetError
from fleet.file_access import SMALL_BYTES, make_folders, open_own, read_file
from fleet.replica import log_rotation, once, shell
from fleet.replica import record as records
from fleet.replica.account import become, forbid_new_privileges
from fleet.replica.command import (
    DEFAULT_PATH,
    LaunchError,
    command,
    environment,
    filled_in,
    read_document,
    with_folder_of,
)
from fleet.replica.counters import counters_file, read_counters, write_counters
from fleet.replica.crash_history import History, Life, pause_seconds, read_history, write_history
from fleet.replica.ending import crash_text, ending_file, read_ending
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.memory_merging import ask_for_merging
from fleet.replica.process_identity import lives
from fleet.replica.resource_limits import CannotLimit, limit
from fleet.state.paths import Places

MISSING_EXIT = 127
MOST_DESCRIPTORS = 65_536
_REFUSAL_PAUSE_SECONDS = 5.0
_AUDIT_PATIENCE_SECONDS = 1.0
_ATTEMPT_SECONDS = 5.0
_LEAST_SECONDS = 0.2
_BETWEEN_ATTEMPTS_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> NoReturn:
    """Become the replica's program, or leave one clear line in its log and exit."""
    launch(argv, become=exec_program, keeps_files=False)


def launch(argv: list[str], *, become: Callable[[LaunchDocument], NoReturn], keeps_files: bool) -> NoReturn:
    """Prepare this process for a replica, then ``become`` its program.

    keeps_files: files that are open stay so; a worker that was forked from an image needs those that its app opened.
    """
    if len(argv) != 2:
        sys.stderr.write("usage: python -m fleet.launch SPEC.json DIGEST\n")
        raise SystemExit(64)
    path = Path(argv[0])
    signal.signal(
        signal.SIGUSR1, signal.SIG_IGN
    )  # it asks a worker for its stacks; one that comes too early must not end it
    try:
        die_with_parent(path)
        document = read_document(path, digest=argv[1])
        open_log(document.log, account=document.spec.account, keeps_files=keeps_files)
    except (LaunchError, OSError) as error:
        _note_refusal(path, digest=argv[1], message=str(error))
        _refuse(path, str(error))
    try:
        _prepare(document)
        become(document)
    except LaunchError as error:
        say(f"{document.replica}: {error}")
        if error.lasts:
            with _record(document) as record:
                record.cannot_start = True
                record.become("starting", str(error))
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # a full disk, a folder that is gone: the crash history cannot be relied on either
        _refuse(path, str(error))


def _prepare(document: LaunchDocument) -> None:
    """From ``wait_out`` on this start is in the history, so a failure below is a crash with a back-off."""
    be_alone(document.lock)
    link_log(document)
    end_if_done(document)
    if document.spec.group == BROKER_GROUP:
        give_data(document.spec)
    now = time.time()
    try:
        set_limits(document)
        count_start(document, now=now)
    finally:  # what tells of a failure is the account's, too
        be_account(document)
    wait_out(document, now=now)
    if document.spec.no_new_privileges:
        forbid_new_privileges()


def exec_program(document: LaunchDocument) -> NoReturn:
    """Become another program. Raises LaunchError."""
    argv = command(document)
    environ = environment(document, os.environ)
    run_program(document, argv, environ)


def run_program(
    document: LaunchDocument, argv: tuple[str, ...], environ: Mapping[str, str], *, own_exit_code: bool = False
) -> NoReturn:
    """Become the program. Raises LaunchError where it cannot be run.

    own_exit_code: what has run to its end exits with its own code, and not with the one that supervisord understands.
    """
    program = _find(argv[0], environ, document.spec)
    settle(document)
    announce(document)
    stop = document.spec.stop
    ends = document.spec.restart.policy != "always"
    if document.spec.kind == "command" and (shell.is_shell(argv) or stop.group or ends):
        grace = document.spec.drain_timeout_seconds
        argv = shell.kept_argv(program, argv, grace_seconds=grace, stop=stop.signal, group=stop.group)
        argv = once.kept_argv(document, argv) if ends and not own_exit_code else argv
        program = argv[0]
    _exec(program, argv, environ)


def _exec(program: str, argv: tuple[str, ...], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process. Text becomes UTF-8 in every locale, so that values arrive byte for byte."""
    try:
        os.execve(_raw(program), [_raw(word) for word in argv], {_raw(k): _raw(v) for k, v in environ.items()})
    except ValueError as error:
        raise LaunchError(f"cannot run {argv[0]!r}: {error}") from error
    except OSError as error:
        reason = "its arguments and environment are too long" if error.errno == errno.E2BIG else error.strerror
        raise LaunchError(f"cannot run {program!r}: {reason}", exit_code=MISSING_EXIT, lasts=True) from error


def _refuse(path: Path, message: str) -> NoReturn:
    """Exit with 1, after a message in the log that follows from the path: the document cannot be read. The pause keeps
    supervisord from restarting it at once."""
    with contextlib.suppress(OSError):
        open_log(path.parent.parent.parent / "log" / f"{path.stem}.log")
    say(f"{path.stem}: {message}")
    time.sleep(_REFUSAL_PAUSE_SECONDS)
    raise SystemExit(1)


def _note_refusal(path: Path, *, digest: str, message: str) -> None:
    """In the replica's record, so that it is seen at once why it does not run.

    Not where a process of it lives, whose record it is, nor in the folder of another account, which holds what that
    account likes.
    """
    places = Places(path.parent.parent.parent)
    file, counted = places.record_file(path.stem), counters_file(places.counters, path.stem)
    earlier = records.read(file)
    if file.parent != places.records or (earlier is not None and lives(earlier.pid, earlier.started_ticks)):
        return
    with contextlib.suppress(OSError):
        write_counters(counted, read_counters(counted).with_record(earlier))
        with contextlib.closing(records.Record(file, digest=digest, slots=0)) as record:
            record.cannot_start = True
            record.become("starting", message)


def say(message: str) -> None:
    """One line in the replica's log."""
    now = time.strftime("%Y-%m-%d %H:%M:%S%z")
    with contextlib.suppress(OSError):
        os.write(2, f"{now} fleet.launch {message}\n".encode(errors="surrogateescape"))


# --- the process


def die_with_parent(spec_path: Path) -> None:
    """Have the kernel send TERM when supervisord dies, so that a replica without it drains and exits.

    supervisord may have died before this call: then the parent is a different process by now, and this one exits.
    """
    parent = os.getppid()
    _signal_at_death_of_parent()
    expected = _supervisor_pid(spec_path) if "SUPERVISOR_ENABLED" in os.environ else parent
    if os.getppid() != parent or expected not in (None, parent):
        raise SystemExit(1)


def _signal_at_death_of_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise LaunchError(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")


def be_account(document: LaunchDocument) -> None:
    """Be the replica's account, where that is not fleet's own. Raises LaunchError."""
    if document.spec.account != FLEETS_ACCOUNT:
        change_account(document.spec.account)


def change_account(account: AccountSpec) -> None:
    """Be the replica's account from here on. Raises LaunchError.

    The kernel forgets with it that this process is to end with its parent, which may have died meanwhile.
    """
    parent = os.getppid()
    try:
        become(account)
    except OSError as error:
        raise LaunchError(f"cannot become {account.user}: {error}", lasts=True) from error
    _signal_at_death_of_parent()
    if os.getppid() != parent:
        raise SystemExit(1)


def give_data(spec: WorkerSpec) -> None:
    """The embedded broker's data belongs to its account. Raises LaunchError for that of another one.

    Only what root alone could change until now is given away: in a folder of somebody else anything may lie.
    """
    folder = Path(spec.command[spec.command.index("--dir") + 1])
    uid = spec.account.uid if spec.account.user else os.geteuid()
    has = folder.lstat().st_uid
    if has == uid:
        return
    if has != os.geteuid():
        hint = f"stop the fleet, look at what is in there, and run `chown -R {uid} {folder}`"
        raise LaunchError(f"{folder} belongs to uid {has}, not to {uid}: {hint}", lasts=True)
    for place, _, names, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in names:
            os.chown(name, uid, spec.account.gid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(place, uid, spec.account.gid, follow_symlinks=False)


def _supervisor_pid(spec_path: Path) -> int | None:
    """supervisord writes its pid file before it starts anything."""
    try:
        return int(read_file(spec_path.parent.parent / "supervisord.pid", limit_bytes=SMALL_BYTES))
    except (OSError, ValueError):
        return None


def be_alone(path: Path) -> None:
    """Wait until no earlier process of this replica lives, and keep the lock for as long as this process does.

    A record lock belongs to the process: exec keeps it, fork does not pass it on, the end of the process frees it. So
    two main processes of one replica can never run at the same time, however they
    were started. TERM ends the waiting at once.
    """
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        say(f"{path.stem}: an earlier process still drains; waiting for its end")
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    os.set_inheritable(descriptor, True)


def open_log(path: Path, *, account: AccountSpec = FLEETS_ACCOUNT, keeps_files: bool = False) -> None:
    """Standard output and error go to the replica's own log, standard input is empty, nothing else stays open.

    With a log of its own a replica does not get a broken pipe when supervisord dies. It belongs to the replica's
    account; one that belonged to another is moved aside.
    """
    make_folders(path.parent)
    log_rotation.move_aside(path)
    log = _log_of(path, account.uid if account.user else os.geteuid(), account.gid)
    os.set_blocking(log, True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stderr.flush()
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if keeps_files:
        os.close(log)
        os.close(nothing)
        return
    highest = max((int(name) for name in os.listdir("/proc/self/fd")), default=2)
    os.closerange(3, highest + 1)


def end_if_done(document: LaunchDocument) -> None:
    """End at once what has run to its end, and with ``never`` what was killed in the middle."""
    policy = document.spec.restart.policy
    if policy == "always":
        return
    earlier = records.read(document.record)
    if earlier is None or earlier.digest != document.digest:
        return
    if earlier.state == "stopped":
        raise SystemExit(PARKED_EXIT)
    if policy == "never" and read_history(document.starts).began is not None:
        if earlier.cannot_start:
            return
        note = "it was killed before its end, and is not run again (restart.policy: never)"
        say(f"{document.replica}: {note}")
        be_account(document)  # the record is the account's
        with _record(document) as record:
            record.become("failed", note)
        raise SystemExit(PARKED_EXIT)


def link_log(document: LaunchDocument) -> None:
    """A link to the replica's log where the manifest wants one. What is there and is no link stays."""
    if not document.spec.log_link:
        return
    link = Path(filled_in(document.spec.log_link, document))
    try:
        if link.is_symlink() or not link.exists():
            make_folders(link.parent)
            fresh = link.with_name(f".{link.name}.{os.getpid()}")
            fresh.symlink_to(document.log)
            fresh.replace(link)
        else:
            say(f"{document.replica}: logFile {link}: something else is there and stays")
    except OSError as error:
        say(f"{document.replica}: logFile {link}: {error.strerror}")


def set_limits(document: LaunchDocument) -> None:
    """The replica's own limits. Raises LaunchError."""
    spec = document.spec
    if not spec.nice and spec.limits == LimitsSpec():
        return

    def told(text: str) -> None:
        say(f"{document.replica}: {text}")

    try:
        limit(spec.limits, nice=spec.nice, name=f"{document.fleet}-{document.replica}", say=told)
    except CannotLimit as error:
        raise LaunchError(str(error), lasts=True) from error


def _log_of(path: Path, uid: int, gid: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    own = os.geteuid()
    has = path.lstat().st_uid if os.path.lexists(path) else None
    if own != 0 or has == uid:
        return open_own(path, flags, owner=uid)
    if has is not None:
        log_rotation.move_aside(path, limit_bytes=-1)
    log = open_own(path, flags)
    if uid != own:
        os.fchown(log, uid, gid)
    return log


def settle_folder(folder: str) -> None:
    """Enter the working folder. Raises LaunchError."""
    try:
        os.chdir(_raw(folder))
    except (OSError, ValueError) as error:
        raise LaunchError(f"cannot enter the working folder: {error}", lasts=True) from error


def settle(document: LaunchDocument) -> None:
    """Limits, folder, file mode and signals as a program expects them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if document.spec.limits.open_files is None and soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    settle_folder(document.spec.workdir or str(document.run_folder.parent))
    os.umask(0o022)
    # A worker of fleet's own asks when it runs: a kernel before Linux 6.9 forgets it with exec.
    if document.spec.merge_memory and document.spec.kind != "worker" and (why := ask_for_merging()):
        say(f"{document.replica}: mergeMemory: {why}")
    kept = {signal.SIGUSR1} if document.spec.kind != "command" else set()
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - kept:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


# --- crashes


def wait_out(document: LaunchDocument, *, now: float) -> None:
    """Sleep the back-off of a crash loop, or park; then write this start to the history."""
    policy = document.spec.restart
    why = _reason_of_last_end(document)
    history, reason = history_before(document, now), _lasting_reason(document)
    write_history(document.starts, history)
    pause = pause_seconds(history.lives, policy, now=now)
    crashes = sum(life.is_crash for life in history.lives)
    if pause is None:
        _park(document, crashes, why)
    if pause:
        note = f"crashed {crashes} {'time' if crashes == 1 else 'times'}; starts again in {pause:g} s{why}"
        say(f"{document.replica}: {note}")
        with _record(document) as record:
            record.cannot_start = bool(reason)
            record.become("starting", reason or note)
        time.sleep(pause)
    began = time.time()
    try:
        await_outside(document)
    except LaunchError:
        write_history(document.starts, replace(history, began=began))
        raise
    write_history(document.starts, replace(history, began=time.time()))


def await_outside(document: LaunchDocument) -> None:
    """Wait until everything answers that the program needs; the record says what does not. Raises LaunchError."""
    wait = document.spec.wait_for
    if not wait.urls:
        return
    from fleet.replica.outside import why_silent_soon  # takes a while to import, and few need it

    began, missing, told = time.monotonic(), list(wait.urls), ""
    is_repeated = bool(_lasting_reason(document))
    while missing:
        left = began + wait.timeout_seconds - time.monotonic()
        why = why_silent_soon(missing[0], timeout_seconds=min(_ATTEMPT_SECONDS, max(_LEAST_SECONDS, left)))
        if not why:
            missing.pop(0)
            continue
        note = f"{masked(missing[0])}: {why}"
        if left <= 0:
            raise LaunchError(f"waited {wait.timeout_seconds:g} s for {note}", lasts=True)
        if note != told:
            told = note
            say(f"{document.replica}: waits for {note}")
            with _record(document) as record:
                record.cannot_start = is_repeated
                record.become("starting", f"waits for {note}")
        time.sleep(min(_BETWEEN_ATTEMPTS_SECONDS, max(0.0, left)))
    if told:
        say(f"{document.replica}: all it waited for answers, after {time.monotonic() - began:.0f} s")


def count_start(document: LaunchDocument, *, now: float) -> None:
    """Count this start, add what the process before has done, and tell of its crash and of a park that follows.
    Whatever cannot be written of that stops no start. The files are fleet's own: no other account can write them.

    The history on disk still says that the process before runs: whoever is killed in here does it again.
    """
    history = history_before(document, now)
    _count(document, history, now)
    if pause_seconds(history.lives, document.spec.restart, now=now) is None:
        crashes = sum(life.is_crash for life in history.lives)
        _tell(document, "worker.parked", _park_note(document, crashes, _reason_of_last_end(document)), {})


def _count(document: LaunchDocument, history: History, now: float) -> None:
    began, earlier = read_history(document.starts).began, records.read(document.record)
    ending = read_ending(ending_file(Places(document.run_folder.parent).records, document.replica))
    if began is not None and ending is not None and ending.at < began:
        ending = None  # of an earlier process
    crashed = began is not None and history.lives[-1].is_crash and not (ending is not None and ending.asked)
    path = counters_file(Places(document.run_folder.parent).counters, document.replica)
    counters = read_counters(path).with_record(earlier)
    with contextlib.suppress(OSError):
        write_counters(path, replace(counters, starts=counters.starts + 1, crashes=counters.crashes + crashed))
    if began is None or not crashed:
        return
    lived = (ending.at if ending is not None else now) - began
    how = ending.how if ending is not None else "ended, nobody saw how,"
    tasks = [{"id": task.task_id, "name": task.task_name} for task in earlier.tasks] if earlier is not None else []
    entry: dict[str, object] = {
        "process": earlier.pid if earlier is not None else None,
        "lived": round(max(0.0, lived), 3),
    }
    if ending is not None:
        entry |= {"process": ending.pid, "signal": ending.signal_name, "exitCode": ending.exit_code}
    _tell(document, "worker.crashed", crash_text(how, lived, earlier), {**entry, "tasks": tasks})


def _tell(document: LaunchDocument, event: str, reason: str, more: Mapping[str, object]) -> None:
    """Into the fleet's audit."""
    from fleet.state.audit import Audit

    audit = Audit(Places(document.run_folder.parent).audit, patience_seconds=_AUDIT_PATIENCE_SECONDS)
    with contextlib.suppress(FleetError):
        audit.write({"event": event, "by": "fleet", "replica": document.replica, **more, "reason": reason})


def announce(document: LaunchDocument) -> None:
    """Write `ready` for a program that keeps no record of its own; the observer adds the time it must have run.
    Celery's worker is about to keep one, or to say that it cannot."""
    with _record(document, awaited=document.spec.kind == "celery") as record:
        record.become("starting" if document.spec.kind == "worker" else "ready")


def _park(document: LaunchDocument, crashes: int, why: str) -> NoReturn:
    note = _park_note(document, crashes, why)
    say(f"{document.replica}: {note}; `fleet restart {document.replica}` tries again")
    with _record(document) as record:
        record.become("failed", note)
    raise SystemExit(PARKED_EXIT)


def _park_note(document: LaunchDocument, crashes: int, why: str) -> str:
    return f"parked: {crashes} crashes in {document.spec.restart.window_seconds:g} s{why}"


def _reason_of_last_end(document: LaunchDocument) -> str:
    """What a worker that gave itself up wrote into its record; empty when no life has ended since the last look."""
    earlier = records.read(document.record) if read_history(document.starts).began is not None else None
    return f": {earlier.note}" if earlier is not None and earlier.state == "failed" and earlier.note else ""


def history_before(document: LaunchDocument, now: float) -> History:
    """The earlier processes within the window; the last one has just ended, and its record says what ran."""
    history = read_history(document.starts)
    lives = list(history.lives)
    if history.began is not None:
        earlier = records.read(document.record)
        clean, worked = (False, False) if earlier is None else (earlier.state == "stopped", earlier.processed > 0)
        lives.append(Life(min(history.began, now), now, clean=clean, worked=worked))
        if earlier is not None and not clean:
            history = history.after_crash(task.task_id for task in earlier.tasks)
    recent = tuple(life for life in lives if life.ended > now - document.spec.restart.window_seconds)
    return replace(history, lives=recent, began=None)


def _lasting_reason(document: LaunchDocument) -> str:
    """Why the life before could not start and this one will not either, as far as is known; ''."""
    earlier = records.read(document.record)
    same = earlier is not None and earlier.cannot_start and earlier.digest == document.digest
    return earlier.note if same and earlier is not None and read_history(document.starts).lives else ""


def _record(document: LaunchDocument, *, awaited: bool = False) -> contextlib.closing[records.Record]:
    slots = document.spec.pool.concurrency if document.spec.kind != "command" else 0
    foreign = document.spec.kind != "worker"
    record = records.Record(document.record, digest=document.digest, slots=slots, foreign=foreign, awaited=awaited)
    record.crashes = sum(life.is_crash for life in read_history(document.starts).lives)
    return contextlib.closing(record)


def _find(program: str, environ: Mapping[str, str], spec: WorkerSpec) -> str:
    if "/" in program:
        return program
    path = with_folder_of(spec.python, environ.get("PATH", DEFAULT_PATH))
    if (found := shutil.which(program, path=path)) is None:
        raise LaunchError(f"cannot run {program!r}: not found in PATH ({path})", exit_code=MISSING_EXIT, lasts=True)
    return found


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


if __name__ == "__main__":
    main(sys.argv[1:])
