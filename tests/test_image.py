"""The Dockerfiles: what they name is there, and where podman and their base image are here, they build and run."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from fleet._version import __version__
from fleet.cli.parser import parse
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


def bases() -> set[str]:
    """The images that the Dockerfile for users starts from."""
    return set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))


def test_they_build_and_what_is_built_runs() -> None:
    """The packages come from where this machine's pip and uv look for them; no image is pulled."""
    command = engine_or_skip()
    for base in bases():
        if subprocess.run([*command, "image", "exists", base], check=False).returncode:
            pytest.skip(f"the base image {base} is not on this machine: podman pull docker.io/library/{base}")

    def podman(*words: str) -> str:
        done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def build(name: str, file: Path, *more: str) -> None:
        options = ("--format", "docker", "--pull=never", "--network", "host", *play.LIMITS, *more)
        podman("build", *options, "--tag", name, "--file", str(file), ".")

    def run(name: str, *words: str, entry: str = "fleet") -> str:
        options = ("--rm", "--no-healthcheck", "--network", "host", *play.LIMITS)
        return podman("run", *options, "--entrypoint", entry, name, *words)

    own, shop = "localhost/fleet-test-image", "localhost/fleet-test-shop"
    try:
        build(own, FILES[0])
        assert run(own, "version").startswith(f"fleet {__version__} ")
        image = json.loads(podman("image", "inspect", own))[0]
        facts = image["Config"]
        assert (facts["User"], facts["Entrypoint"], facts["Cmd"]) == ("10001", ["fleet"], ["run", "/app/fleet.yaml"])
        assert image["Healthcheck"]["Test"] == ["CMD", "fleet", "health", "--probe", "live"]
        build(shop, FILES[1], "--build-context", f"fleet=container-image://{own}")
        look = "import os, kubernetes, fleet.pod, shop.worker; print(os.getuid())"
        assert run(shop, "-c", look, entry="python3") == "10001", "no root, and it finds fleet, the client and the app"
    finally:
        subprocess.run([*command, "rmi", "--force", shop, own], capture_output=True, check=False)
