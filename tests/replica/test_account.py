"""A replica with an account of its own: what its process may do, and what no other account may."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import launch
from fleet.backends.supervisor.processes import Mark, Table, read_mark
from fleet.backends.supervisor.replica_files import Folder
from fleet.cli.verbs import stacks
from fleet.core.desired import BROKER_GROUP, Replica
from fleet.core.spec import AccountSpec, WorkerSpec, digest, forks_from_image
from fleet.replica import launch_document
from fleet.replica import record as records
from fleet.replica.command import LaunchError
from fleet.state.paths import Places
from tests.accounts import NAME, as_nobody, gid, give, needs_second_account, open_to_all, uid
from tests.backends.worlds import spec_of
from tests.conftest import PATIENCE, eventually
from tests.replica.test_launch import Launchpad

DAEMON = pwd.getpwnam("daemon")
OWNER = AccountSpec("daemon", DAEMON.pw_uid, DAEMON.pw_gid)
"""The account of the replica; the second account of the tests is neither its own nor root's."""
REPORT = """
import ctypes, json, os
signum = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signum))
print(json.dumps({
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "env": dict(os.environ),
    "at_death_of_parent": signum.value, "umask": os.umask(0), "cwd": os.getcwd(),
    "status": dict(line.split(":", 1) for line in open("/proc/self/status")),
    "log_again": open("/proc/self/fd/2").readable(),
    "document": json.load(open(os.environ["FLEET_SPEC"]))["replica"],
}), flush=True)
"""


@pytest.fixture
def pad(short_tmp: Path) -> Launchpad:
    return Launchpad(Places.of(open_to_all(short_tmp) / "home", "shop"))


def owned(command: tuple[str, ...] = ("sleep", "1000"), **more: Any) -> WorkerSpec:
    return spec_of(command, account=OWNER, python="", workdir="/", **more)


def report(pad: Launchpad, **more: Any) -> Any:
    """What the program of the account found."""
    spec = owned(("/usr/bin/env", "python3", "-S", "-c", REPORT), secret_env=(("SECRET", "key", "mark"),), **more)
    around = {"PATH": "/usr/bin:/bin", "HOME": "/root", "USER": "root", "LOGNAME": "root", "TMPDIR": "/root/tmp"}
    assert pad.run(spec, env=around, key="s3cret") == 0, pad.log
    return json.loads(pad.log)


@needs_second_account
def test_the_program_is_the_accounts_in_every_way(pad: Launchpad) -> None:
    found = report(pad)
    assert found["uid"] == [OWNER.uid] * 3
    assert found["gid"] == [OWNER.gid] * 3
    assert 0 not in found["groups"]
    assert sorted(found["groups"]) == sorted(os.getgrouplist(OWNER.user, OWNER.gid))
    env = found["env"]
    assert (env["HOME"], env["USER"], env["LOGNAME"]) == (DAEMON.pw_dir, "daemon", "daemon")
    assert env["SECRET"] == "s3cret"
    assert "TMPDIR" not in env, "it was root's"
    assert found["at_death_of_parent"] == signal.SIGTERM, "the kernel forgets it when the account changes"
    assert int(found["status"]["CapEff"], 16) == int(found["status"]["CapPrm"], 16) == 0
    assert found["status"]["NoNewPrivs"].strip() == "0"
    assert found["umask"] == 0o022
    assert found["document"] == "thumbs.0"


@needs_second_account
def test_a_number_without_a_name_is_an_account_too(pad: Launchpad) -> None:
    spec = owned(("/usr/bin/env", "python3", "-S", "-c", REPORT))
    assert pad.run(replace(spec, account=AccountSpec("61999", 61999, 61998)), env={"PATH": "/usr/bin:/bin"}) == 0
    found = json.loads(pad.log)
    assert (found["uid"], found["gid"], found["groups"]) == ([61999] * 3, [61998] * 3, [61998])
    assert found["env"]["HOME"] == "/"
    assert "USER" not in found["env"]


@needs_second_account
def test_no_new_privileges_for_an_account(pad: Launchpad) -> None:
    assert report(pad, no_new_privileges=True)["status"]["NoNewPrivs"].strip() == "1"


def test_no_new_privileges_without_an_account(pad: Launchpad) -> None:
    code = "print([line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')][0].split()[1])"
    assert pad.run(spec_of(("/usr/bin/env", "python3", "-S", "-c", code), no_new_privileges=True)) == 0
    assert pad.log.strip() == "1"


def files(places: Places) -> list[Path]:
    return [path for path in places.root.rglob("*") if path.is_file()]


def can_read(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


@needs_second_account
def test_files_of_a_replica_are_its_accounts_alone(pad: Launchpad) -> None:
    report(pad)
    places = pad.places
    mine = [path for path in files(places) if path.stat().st_uid == OWNER.uid]
    names = {path.relative_to(places.root) for path in mine}
    folder = Path("accounts") / str(OWNER.uid)
    assert names >= {
        folder / "specs/thumbs.0.json",
        folder / "records/thumbs.0.rec",
        folder / "records/thumbs.0.starts",
        Path("log/thumbs.0.log"),
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(places)} == {0o600}
    assert [path for path in files(places) if as_nobody(lambda path=path: can_read(path))] == []
    for place in (places.root.parent, places.root, places.accounts, places.account_specs(OWNER.uid)):
        with pytest.raises(PermissionError):
            as_nobody(lambda place=place: os.listdir(place))
    with pytest.raises(PermissionError):
        as_nobody(lambda: (places.account_specs(OWNER.uid) / "planted.json").write_text("{}"))


@needs_second_account
def test_what_an_account_writes_into_its_copy_only_it_believes(pad: Launchpad) -> None:
    """The launcher is root's and reads root's document: else the account would name another one, or none."""
    replica = pad.write(owned(("id", "-u"), drain_timeout_seconds=3.0))
    copy = pad.places.account_specs(OWNER.uid) / f"{replica.name}.json"
    assert launch_document.read(pad.places.spec_file(replica.name)).copy == copy
    copy.write_text(copy.read_text().replace('"user": "daemon"', '"user": ""'))
    os.chown(copy, OWNER.uid, OWNER.gid)
    with pad.popen(replica) as process:
        process.wait(PATIENCE)
    assert pad.log.strip() == str(OWNER.uid)
    assert pad.places.spec_file(replica.name).stat().st_uid == 0


@needs_second_account
def test_an_account_without_rights_to_the_folder_says_so_and_lasts(pad: Launchpad, short_tmp: Path) -> None:
    closed = short_tmp / "closed"
    closed.mkdir(mode=0o700)
    assert pad.run(replace(owned(), workdir=str(closed))) == 1
    assert "cannot enter the working folder" in pad.log
    assert pad.record.cannot_start


@needs_second_account
def test_the_log_of_an_earlier_account_is_moved_aside(pad: Launchpad) -> None:
    assert pad.run(spec_of(("echo", "of root"))) == 0
    assert pad.run(owned(("echo", "of daemon"))) == 0
    log = pad.places.log_file("thumbs.0")
    assert log.read_text().strip() == "of daemon"
    assert log.stat().st_uid == OWNER.uid
    assert log.with_name("thumbs.0.log.1").read_text().strip() == "of root"
    assert log.with_name("thumbs.0.log.1").stat().st_uid == 0


@needs_second_account
def test_a_hold_of_root_reaches_the_record_of_an_account_and_no_other_file(pad: Launchpad, short_tmp: Path) -> None:
    pad.run(owned(("true",)))
    path = pad.places.record_file("thumbs.0")
    assert path.parent == pad.places.account_records(OWNER.uid)
    assert records.set_hold(path, on=True)
    assert pad.record.hold
    victim = short_tmp / "victim"
    victim.write_bytes(b"x" * 1000)
    path.unlink()
    path.symlink_to(victim)
    assert not records.set_hold(path, on=True)
    assert records.read(path) is None
    path.unlink()
    os.link(victim, path)
    assert not records.set_hold(path, on=True), "a hard link to root's file"
    assert victim.read_bytes() == b"x" * 1000


@needs_second_account
def test_an_account_that_changes_leaves_nothing_of_the_earlier_one(pad: Launchpad) -> None:
    pad.run(owned(("true",)))
    folder, places = Folder(pad.places), pad.places
    for account, empty in (
        (AccountSpec(NAME, uid(), gid()), places.accounts / str(OWNER.uid)),
        (AccountSpec(), places.accounts),
    ):
        spec = replace(owned(("true",)), account=account)
        folder.write({Replica("thumbs", 0, spec, digest(spec)): "; Written by fleet"}, secrets={})
        assert [path for path in files(places) if path.is_relative_to(empty)] == []
    assert places.record_file("thumbs.0").parent == places.records


@needs_second_account
def test_stopped_files_of_an_account_are_removed(pad: Launchpad) -> None:
    pad.run(owned(("true",)))
    folder = Folder(pad.places)
    folder.remove(["thumbs.0"])
    folder.remove_records(["thumbs.0"])
    assert [path for path in files(pad.places) if path.is_relative_to(pad.places.accounts)] == []


# --- what a process may pretend


@needs_second_account
@pytest.mark.parametrize(
    ("owner", "claims", "is_believed"),
    [(uid, uid, True), (uid, lambda: OWNER.uid, False), (uid, None, False), (os.geteuid, uid, True)],
)
def test_a_process_is_a_replica_of_its_own_account_only(
    pad: Launchpad, owner: Any, claims: Any, is_believed: bool
) -> None:
    for account in (OWNER, AccountSpec(NAME, uid(), gid())):
        pad.write(replace(owned(), account=account))
    specs = pad.places.specs if claims is None else pad.places.account_specs(claims())
    forged = {"FLEET_SPEC": str(specs / "thumbs.0.json"), "FLEET_PID": "1"}
    with subprocess.Popen(["sleep", "1000"], env=forged, user=owner(), cwd="/") as process:
        try:
            mark = eventually(lambda: [read_mark(process.pid, pad.places.specs)], within=PATIENCE)[0]
            assert mark == (Mark("thumbs.0", main=False) if is_believed else None)
            table = Table.read(pad.places.account_uids())
            assert process.pid in table.procs
        finally:
            process.kill()


@needs_second_account
def test_a_record_cannot_make_root_signal_another_accounts_process(pad: Launchpad) -> None:
    """USR1 ends a program that does not expect it, and the pid in a record is the account's word."""
    pad.write(owned())
    path = pad.places.account_records(OWNER.uid) / "thumbs.0.rec"
    record = records.Record(path, digest="x", slots=1)
    record.become("ready")
    try:
        assert records.read(path) is not None
        assert stacks._workers({"thumbs.0": path}, picky=False) == {}, "this process is root's"
        own = pad.places.records / "thumbs.0.rec"
        os.replace(path, own)
        assert list(stacks._workers({"thumbs.0": own}, picky=False)) == ["thumbs.0"]
    finally:
        record.close()


def test_the_log_of_an_account_is_found_from_its_record(pad: Launchpad) -> None:
    places = pad.places
    for folder in (places.records, places.account_records(61999)):
        assert stacks._log_of(folder / "thumbs.0.rec") == places.log_file("thumbs.0")


# --- the embedded broker's data


def broker_of(folder: Path, account: AccountSpec) -> WorkerSpec:
    command = ("redis-server", "--dir", str(folder))
    return WorkerSpec("command", "shop", BROKER_GROUP, command=command, account=account)


@needs_second_account
def test_the_brokers_data_goes_from_root_to_its_account_and_to_nobody_else(short_tmp: Path) -> None:
    folder, victim = short_tmp / "broker", short_tmp / "victim"
    (folder / "appendonlydir").mkdir(parents=True, mode=0o700)
    (folder / "appendonlydir" / "1.aof").write_text("tasks")
    (folder / "link").symlink_to(victim)
    victim.write_text("root's")
    launch.give_data(broker_of(folder, OWNER))
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {OWNER.uid}
    assert victim.stat().st_uid == 0
    launch.give_data(broker_of(folder, OWNER))
    for other in (AccountSpec(NAME, uid(), gid()), AccountSpec()):
        with pytest.raises(LaunchError, match="chown -R"):
            launch.give_data(broker_of(folder, other))


@needs_second_account
def test_nothing_in_a_folder_of_the_account_is_given_away_later(short_tmp: Path) -> None:
    folder = short_tmp / "broker"
    folder.mkdir()
    give(folder)
    planted = folder / "planted"
    planted.write_text("root's")
    launch.give_data(broker_of(folder, AccountSpec(NAME, uid(), gid())))
    assert planted.stat().st_uid == 0


# --- digests


def test_an_account_and_its_bounds_are_in_the_digest_of_those_that_have_one_and_of_no_other() -> None:
    plain = spec_of(("true",))
    assert digest(replace(plain, account=AccountSpec())) == digest(plain)
    assert digest(replace(plain, no_new_privileges=False)) == digest(plain)
    different = {
        digest(plain),
        digest(replace(plain, account=OWNER)),
        digest(replace(plain, account=replace(OWNER, uid=OWNER.uid + 1))),
        digest(replace(plain, account=replace(OWNER, gid=OWNER.gid + 1))),
        digest(replace(plain, no_new_privileges=True)),
    }
    assert len(different) == 5
    assert WorkerSpec.from_json(replace(plain, account=OWNER).to_json()).account == OWNER


def test_a_replica_with_an_account_is_never_forked_from_an_image() -> None:
    spec = WorkerSpec("worker", "shop", "web", app="m:a")
    assert forks_from_image(spec)
    assert not forks_from_image(replace(spec, account=OWNER))


@needs_second_account
def test_an_account_that_cannot_be_left_is_what_become_makes(pad: Launchpad) -> None:
    code = (
        "import os\nfrom fleet.core.spec import AccountSpec\nfrom fleet.replica.account import become\n"
        f"become(AccountSpec('daemon', {OWNER.uid}, {OWNER.gid}))\n"
        "for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):\n"
        "    try: call()\n    except PermissionError: continue\n    raise SystemExit('it came back')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
