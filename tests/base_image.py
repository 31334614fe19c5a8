"""A base image for the Dockerfiles, made of this machine: its Python with pip and a shell; and a folder of wheels.

It stands for `python:…-slim`, without a registry: in it pip and uv find packages in that folder alone. Only uv is asked
of the index that this machine's pip uses, because nothing else here needs it.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.podman import local_image

WHEELS = "/wheels"
_TOOLS = ("sh", "env", "id", "install", "useradd", "sleep")
_ENVIRONMENT = {
    "PATH": f"/usr/local/bin:{sys.base_prefix}/bin:/usr/bin:/bin",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": WHEELS,
    "PIP_ROOT_USER_ACTION": "ignore",
    "UV_NO_INDEX": "1",
    "UV_FIND_LINKS": WHEELS,
    "UV_OFFLINE": "1",
}


class NoUv(Exception):
    """This machine's pip does not get uv; the message says why."""


def make(engine: list[str], name: str) -> None:
    """Import the base image."""
    changes = (word for key, value in _ENVIRONMENT.items() for word in ("--change", f"ENV {key}={value}"))
    with subprocess.Popen([*engine, "import", "--quiet", *changes, "-", name], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        with tarfile.open(fileobj=importing.stdin, mode="w|") as archive:
            _fill(local_image.Tar(archive))
        importing.stdin.close()
        assert importing.wait() == 0


def collect_wheels(folder: Path) -> None:
    """What an image of fleet is made of, as wheels. Raises NoUv."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "uv"]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoUv((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    for distribution in (metadata.distribution("setuptools"), *_needed()):
        _pack(distribution, folder)


def _needed() -> list[metadata.Distribution]:
    found: list[metadata.Distribution] = local_image.needed("workerfleet", frozenset({"celery", "kubernetes"}))
    return found


def _pack(distribution: metadata.Distribution, folder: Path) -> None:
    """A wheel of what is installed: without its scripts, which an installer makes of the entry points again."""
    files = {str(one): Path(str(distribution.locate_file(one))) for one in distribution.files or ()}
    kept = {name: path for name, path in files.items() if not name.startswith("..") and not name.endswith(".pyc")}
    record = next(name for name in kept if name.endswith(".dist-info/RECORD"))
    tags = [
        line.split()[1].split("-") for line in (distribution.read_text("WHEEL") or "").splitlines() if "Tag:" in line
    ]
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    short = distribution.name.replace("-", "_").replace(".", "_").lower()
    with zipfile.ZipFile(folder / f"{short}-{distribution.version}-{tag}.whl", "w") as wheel:
        for name, path in kept.items():
            if name != record:
                wheel.write(path, name)
        rows = [row for row in csv.reader(kept[record].read_text().splitlines()) if row[0] in kept]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        wheel.writestr(record, text.getvalue())


def _fill(tar: Any) -> None:
    for name, mode in (("tmp", 0o1777), ("root", 0o755), *((name, 0o755) for name in ("proc", "sys", "dev", "run"))):
        tar.folder(name, mode)
    tar.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    tar.text("etc/group", "root:x:0:\n")
    for library in sorted({*local_image.python(tar), *local_image.tools(tar, _TOOLS), *_of_wheels()}):
        tar.file(Path(library), library)
    pip = metadata.distribution("pip")
    site = f"{local_image.STANDARD}/site-packages"
    for one in pip.files or ():
        if not str(one).startswith("..") and not str(one).endswith(".pyc"):
            tar.file(Path(str(pip.locate_file(one))), f"{site}/{one}")
    tar.text("usr/local/bin/pip", '#!/bin/sh\nexec python3 -m pip "$@"\n', mode=0o755)


def _of_wheels() -> Iterator[str]:
    """The system's libraries that compiled modules need."""
    files = [Path(str(one.locate_file(file))) for one in _needed() for file in one.files or () if file.suffix == ".so"]
    yield from local_image.libraries(files)
