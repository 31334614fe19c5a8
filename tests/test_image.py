"""The Dockerfiles: what they name is there, and where podman is, they build and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from fleet._version import __version__
from fleet.cli.parser import parse
from tests import base_image
from tests.conftest import eventually
from tests.podman import engine_or_skip, play

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "Dockerfile", ROOT / "examples" / "07-kubernetes" / "Dockerfile")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_there_and_not_ignored(path: Path) -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    copied = [line.split()[1:-1] for line in path.read_text().splitlines() if re.match(r"COPY (?!--from)", line)]
    assert copied
    for source in (one for sources in copied for one in sources):
        assert (ROOT / source).exists()
        assert source.split("/")[0].removeprefix("./") not in ignored


def test_what_is_run_are_commands_of_fleet() -> None:
    text = (ROOT / "Dockerfile").read_text()
    entry, command, health = (
        json.loads(found[1])
        for word in ("^ENTRYPOINT", "^CMD", "^HEALTHCHECK.* CMD")
        if (found := re.search(rf"{word} (\[.*\])$", text, re.MULTILINE))
    )
    assert entry == ["fleet"] == health[:1]
    assert parse(command).verb.name == "run"
    assert parse(health[1:]).verb.name == "health"


def test_they_build_and_what_is_built_runs(tmp_path: Path) -> None:
    """From a base of this machine's own Python: no image is pulled, and no package is loaded while it is built."""
    command = engine_or_skip()
    try:
        base_image.collect_wheels(tmp_path)
    except base_image.NoUv as error:
        pytest.skip(f"pip gets no uv here: {error}")

    def podman(*words: str) -> str:
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def build(name: str, file: Path, *more: str) -> None:
        options = ("--format", "docker", "--pull=never", "--layers=false", "--network", "host", *play.LIMITS, *more)
        podman("build", *options, "--tag", name, "--file", str(file), ".")

    def run(name: str, *words: str, entry: str = "fleet") -> str:
        options = ("--rm", "--no-healthcheck", "--network", "host", *play.LIMITS)
        return podman("run", *options, "--entrypoint", entry, name, *words)

    base, own, shop = (f"localhost/fleet-test-{name}-{os.getpid()}" for name in ("base", "image", "shop"))
    container = ""
    try:
        base_image.make(command, base)
        build(own, FILES[0], "--build-arg", f"PYTHON_IMAGE={base}", "--volume", f"{tmp_path}:{base_image.WHEELS}:ro")
        image = json.loads(podman("image", "inspect", own))[0]
        facts = image["Config"]
        assert (facts["User"], facts["Entrypoint"], facts["Cmd"]) == ("10001", ["fleet"], ["run", "/app/fleet.yaml"])
        assert image["Healthcheck"]["Test"] == ["CMD", "fleet", "health", "--probe", "live"]
        assert run(own, "--version").startswith(f"fleet {__version__} ")
        assert "--app" in run(own, "worker", "--help")
        assert run(own, "-c", COMPILED, entry="python") == "True", "else each command compiles what it imports"
        (tmp_path / "fleet.yaml").write_text(MANIFEST)
        mounted = ("--volume", f"{tmp_path / 'fleet.yaml'}:/app/fleet.yaml:ro")
        options = ("--detach", "--no-healthcheck", "--network", "host", *play.LIMITS)
        container = podman("run", *options, *mounted, own)
        health = [*command, "exec", container, "fleet", "health", "--probe", "live"]
        eventually(lambda: subprocess.run(health, capture_output=True, check=False).returncode == 0)
        assert podman("exec", container, "id", "-u") == "10001"
        podman("stop", "--time", "60", container)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", container) == "0", "TERM drains it"
        build(shop, FILES[1], "--build-context", f"fleet=container-image://{own}")
        look = "import os, kubernetes, fleet.pod, shop.worker; print(os.getuid())"
        assert run(shop, "-c", look, entry="python3") == "10001", "no root, and it finds fleet, the client and the app"
    finally:
        if container:
            subprocess.run([*command, "rm", "--force", container], capture_output=True, check=False)
        subprocess.run([*command, "rmi", "--force", shop, own, base], capture_output=True, check=False)


COMPILED = "import os, fleet.cli; print(os.path.exists(fleet.cli.__cached__))"
MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: contained}
spec:
  groups:
    sleeper: {command: [sleep, "600"], replicas: 1}
"""
