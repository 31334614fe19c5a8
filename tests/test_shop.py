"""The manifest on the first page does what the first page says: in a clone, for root and for an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import eventually

ROOT = Path(__file__).resolve().parent.parent
PROD, HOSTED = "manifests/prod.yaml", "manifests/hosted.yaml"
PROGRAMS = Path(sys.executable).parent

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Visitor:
    """Somebody in a clone after `make install`: the commands are the ones that README shows."""

    environ: Mapping[str, str]
    state: Path
    become: tuple[str, ...] = ()

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in the root of the clone."""
        return subprocess.run(
            [*self.become, str(PROGRAMS / program), *words],
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def fleet(self, *words: str, code: int = 0) -> str:
        """What a verb printed."""
        done = self.run("fleet", *words)
        assert done.returncode == code, f"fleet {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr if code else done.stdout

    def left_running(self) -> list[str]:
        """Processes that belong to this visitor's fleet."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                if any(str(self.state.parent) in word for word in words):
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A shell's, with nothing of this machine's fleets in it."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(folder / "home"), "SHOP_STATE": str(folder / "state"), "NO_COLOR": "1", **more}


def runner(folder: Path) -> Visitor:
    """Whoever runs the tests, in the checkout itself. FLEET_HOME, or root's fleet would be the machine's own."""
    environ = environment(folder, FLEET_HOME=str(folder / "fleets"))
    return Visitor(environ, folder / "state")


def ordinary_user(folder: Path) -> Visitor:
    """Somebody else without rights, in the same checkout, with a home of their own and FLEET_HOME left to its default.

    An interpreter or a checkout in a folder that is root's alone is shown to them by a mount that only they see; where
    that cannot be had, the test is skipped.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("only root, with setpriv and unshare, can become somebody else")
    nobody = pwd.getpwnam("nobody")
    for made in (folder, folder / "home"):
        made.mkdir(exist_ok=True)
        os.chown(made, nobody.pw_uid, nobody.pw_gid)
    script = "\n".join([*opened(folder / "mounts"), 'exec "$@"'])
    become = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
    visitor = Visitor(environment(folder), folder / "state", ("unshare", "--mount", "sh", "-ec", script, "sh", *become))
    asked = visitor.run("python", "-c", "import os, sys, celery, fleet.cli; print(os.geteuid(), sys.version)")
    if asked.stdout.strip() != f"{nobody.pw_uid} {sys.version}":
        pytest.skip(f"an ordinary user cannot run {sys.executable}: {asked.stdout[-300:]}{asked.stderr[-300:]}")
    return visitor


def opened(stage: Path) -> Iterator[str]:
    """Shell commands, for a mount namespace, that lay open what is needed out of closed folders, and nothing else."""
    needed = sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT})
    closed = {path: hidden for path in needed if (hidden := closed_folder(path)) is not None}
    for number, path in enumerate(closed):
        yield f"mkdir -p {stage}/{number} && mount --bind {path} {stage}/{number}"
    for hidden in sorted(set(closed.values())):
        yield f"mount -t tmpfs -o mode=755 none {hidden}"
    for number, path in enumerate(closed):
        yield f"mkdir -p {path} && mount --bind {stage}/{number} {path}"


def closed_folder(path: Path) -> Path | None:
    """The outermost folder on the way that others may not pass."""
    return next((one for one in (*reversed(path.parents), path) if not one.stat().st_mode & stat.S_IXOTH), None)


@pytest.fixture(params=[runner, ordinary_user], ids=["whoever-tests", "ordinary-user"])
def visitor(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Visitor]:
    """Both of them, one after the other; whatever happens, nothing of theirs is left."""
    somebody: Visitor = request.param(short_tmp)
    yield somebody
    if somebody.left_running():
        somebody.run("fleet", "down", PROD, "--yes")
    assert eventually(lambda: not somebody.left_running(), within=60)


def test_the_shop_comes_up_works_and_goes(visitor: Visitor) -> None:
    visitor.fleet("apply", PROD, "--yes")
    visitor.fleet("plan", PROD, "--detailed-exitcode", code=0)
    groups = json.loads(visitor.fleet("status", "--fleet", "shop", "-o", "json"))["groups"]
    assert {group["pool"] for group in groups.values()} >= {"solo", "prefork", "threads", "gevent", "asyncio"}
    assert sum(group["slots"]["desired"] for group in groups.values()) == 80
    assert all(group["replicas"]["ready"] == group["replicas"]["desired"] for group in groups.values())

    sent = visitor.run("python", "examples/shop/send.py", "--share", "0.2")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert sent.stdout.count("✓") == 6
    assert "all right" in sent.stdout

    groups = json.loads(visitor.fleet("status", "--fleet", "shop", "-o", "json"))["groups"]
    assert {name for name, group in groups.items() if group["processed"]} >= {
        *("thumbs", "reports", "mail", "webhooks", "stock")
    }
    assert not any(group["failed"] for group in groups.values())
    live = json.loads(visitor.fleet("explain", "--fleet", "shop", "--live", "-o", "json"))
    assert live["running"]
    assert set(live["groups"]) == {"webhooks"}
    assert json.loads(visitor.fleet("explain", PROD, "-o", "json"))["allocated"] == 80

    key = visitor.state / "secrets" / "stripe-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    told = visitor.fleet("logs", "--fleet", "shop") + visitor.fleet("events", "--fleet", "shop")
    assert key.read_text() not in told

    assert visitor.left_running()
    visitor.fleet("down", PROD, "--yes")
    assert visitor.left_running() == []


# --- the overlay of a hosted shop, with stand-ins for what only its machines have


@pytest.fixture
def hosted(short_tmp: Path) -> Visitor:
    """A release behind a symlink, secrets in files, and a program called vault."""
    for release in ("1", "2"):
        (short_tmp / "releases" / release / ".venv" / "bin").mkdir(parents=True)
        (short_tmp / "releases" / release / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (short_tmp / "current").symlink_to("releases/1")
    for name in ("broker", "results"):
        path = short_tmp / "secrets" / f"{name}_url"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"redis://:hunter2@{name}.example.com/0\n")
        path.chmod(0o600)
    vault = short_tmp / "bin" / "vault"
    vault.parent.mkdir()
    vault.write_text('#!/bin/sh\n[ "$*" = "kv get -field=key secret/shop/stripe" ] && echo hunter3\n')
    vault.chmod(0o755)
    environ = environment(
        short_tmp,
        PATH=f"{vault.parent}:{os.environ['PATH']}",
        FLEET_HOME=str(short_tmp / "fleets"),
        SHOP_RELEASE=str(short_tmp / "current"),
        SHOP_SECRETS=str(short_tmp / "secrets"),
    )
    return Visitor(environ, short_tmp / "state")


def test_a_hosted_shop_is_validated_and_planned(hosted: Visitor, short_tmp: Path) -> None:
    assert "no problems" in hosted.fleet("validate", PROD, HOSTED, "--strict")
    planned = json.loads(hosted.fleet("plan", PROD, HOSTED, "-o", "json"))
    replicas = [step["replica"] for step in planned["steps"]]
    groups = {name.rpartition(".")[0] for name in replicas}
    assert groups == {"thumbs", "reports", "stock", "mail", "webhooks", "beat", "fleet-controller"}
    assert sum(name.startswith("thumbs.") for name in replicas) == 20
    explained = json.loads(hosted.fleet("explain", PROD, HOSTED, "-o", "json"))
    assert (explained["budget"], explained["allocated"]) == (200, 200)

    files = hosted.fleet("render", PROD, HOSTED)
    assert f'"workdir": "{short_tmp.resolve()}/releases/1"' in files
    assert '"secret": "broker-url"' in files
    assert "hunter" not in files
    (short_tmp / "current").unlink()
    (short_tmp / "current").symlink_to("releases/2")
    assert f'"workdir": "{short_tmp.resolve()}/releases/2"' in hosted.fleet("render", PROD, HOSTED)
    assert not (short_tmp / "fleets").exists()


def test_a_hosted_shop_without_its_vault_is_refused_and_leaves_nothing(hosted: Visitor, short_tmp: Path) -> None:
    (short_tmp / "bin" / "vault").unlink()
    assert "cannot run 'vault'" in hosted.fleet("apply", PROD, HOSTED, "--yes", code=1)
    assert not (short_tmp / "fleets").exists()
    assert "there is no fleet 'shop'" in hosted.fleet("status", "--fleet", "shop", code=64)
