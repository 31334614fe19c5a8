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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import eventually

ROOT = Path(__file__).resolve().parent.parent
PROD, HOSTED = "manifests/prod.yaml", "manifests/hosted.yaml"
PACKAGES = Path(pytest.__file__).resolve().parent.parent
IMPORTS = "import celery, fleet.cli, gevent, pools, psutil, pydantic, setproctitle, supervisor, yaml"

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Visitor:
    """Somebody in a clone after `make install`: the commands are the ones that README shows."""

    clone: Path
    environ: Mapping[str, str]
    state: Path
    account: Mapping[str, Any] = field(default_factory=dict)
    programs: Path = Path(".venv/bin")

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, with the clone as the folder."""
        return subprocess.run(
            [str(self.programs / program), *words],
            cwd=self.clone,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            **self.account,
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
                if process.environ().get("SHOP_STATE") == str(self.state):
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
    return Visitor(ROOT, environ, folder / "state", programs=Path(sys.executable).parent)


def ordinary_user(folder: Path) -> Visitor:
    """Somebody without rights, with a clone and an environment of their own. Skips where no such thing can be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other case is an ordinary user already")
    nobody = pwd.getpwnam("nobody")
    clone = folder / "clone"
    for name in ("fleet", "pools", "examples", "manifests"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "home").mkdir()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    visitor = Visitor(clone, environment(folder), folder / "state", account)
    if not any(installed(visitor, python) for python in interpreters()):
        pytest.skip(f"an ordinary user can run no Python {sys.version_info[:2]} that imports from {PACKAGES}")
    return visitor


def interpreters() -> list[str]:
    """Programs that may be this version of Python, this one first."""
    name = "python{}.{}".format(*sys.version_info[:2])
    folders = ("/usr/local/bin", "/usr/bin")
    return [getattr(sys, "_base_executable", sys.executable), *(f"{folder}/{name}" for folder in folders)]


def installed(visitor: Visitor, python: str) -> bool:
    """As after `make install`, but with the packages that are there already. False where the user cannot run it."""
    environment = visitor.clone / ".venv"
    shutil.rmtree(environment, ignore_errors=True)
    making = [python, "-m", "venv", "--without-pip", str(environment)]
    options: dict[str, Any] = {"env": visitor.environ, "cwd": visitor.clone, "capture_output": True, **visitor.account}
    try:
        if subprocess.run(making, check=False, **options).returncode:
            return False
        site = next((environment / "lib").glob("python*/site-packages"))
        (site / "clone.pth").write_text(f"{visitor.clone}\n{PACKAGES}\n")
        for program in ("fleet", "celery"):
            text = (Path(sys.executable).parent / program).read_text()
            made = environment / "bin" / program
            made.write_text(f"#!{environment}/bin/python\n{text.partition(chr(10))[2]}")
            made.chmod(0o755)
        asked = [str(environment / "bin" / "python"), "-c", IMPORTS]
        return subprocess.run(asked, check=False, **options).returncode == 0
    except (OSError, StopIteration):
        return False


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
    return Visitor(ROOT, environ, short_tmp / "state", programs=Path(sys.executable).parent)


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
