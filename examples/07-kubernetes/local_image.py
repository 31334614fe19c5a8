"""Makes a container image of this machine's Python, fleet and an app. No network, no registry, no Dockerfile.

For the demo and for tests alone: an image for a cluster is made by the Dockerfile at the top of the repository.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import fleet
import pools

USER = 10001
SITE = "/opt/site"
STANDARD = Path(sysconfig.get_paths()["stdlib"])
_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"}
)
_SCRIPT = "#!/usr/local/bin/python3 -P\nimport sys\n\nfrom {0} import {1}\n\nsys.exit({1}())\n"
_TOOLS = ("sh", "sleep", "cat", "ls", "env", "id")


def make(engine: list[str], name: str, app: Path, extras: Iterable[str] = ("celery",)) -> None:
    """Import the image ``name``, with the folder ``app`` as /app. ``engine``: podman's command line."""
    variables = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": SITE, "PYTHONUNBUFFERED": "1", "HOME": "/tmp"}
    changes = [f"USER {USER}", "WORKDIR /app", *(f"ENV {one}={value}" for one, value in variables.items())]
    command = [*engine, "import", "--quiet", *(word for one in changes for word in ("--change", one)), "-", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
        assert importing.stdin is not None
        with tarfile.open(fileobj=importing.stdin, mode="w|", dereference=False) as tar:
            _fill(Tar(tar), app, extras)
        importing.stdin.close()
        if importing.wait():
            raise RuntimeError(f"{command[0]} cannot import an image")


class Tar:
    """Adds files of this machine, each with the folders above it, readable by everybody."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._there: set[str] = set()

    def folder(self, name: str, mode: int = 0o755) -> None:
        name = name.strip("/")
        if not name or name in self._there:
            return
        self.folder(os.path.dirname(name))
        self._there.add(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(entry)

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        self.folder(os.path.dirname(name))
        entry = tarfile.TarInfo(name.strip("/"))
        entry.size, entry.mode = len(text), mode
        self._tar.addfile(entry, io.BytesIO(text.encode()))

    def link(self, name: str, target: str) -> None:
        self.folder(os.path.dirname(name))
        entry = tarfile.TarInfo(name.strip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)

    def file(self, source: Path, name: str) -> None:
        name = name.strip("/")
        if name in self._there:
            return
        self.folder(os.path.dirname(name))
        self._there.add(name)
        real = source.resolve()
        entry = self._tar.gettarinfo(str(real), arcname=name)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mode |= 0o444 | (0o111 if entry.mode & 0o100 else 0)
        if entry.isreg():
            with real.open("rb") as data:
                self._tar.addfile(entry, data)

    def tree(self, source: Path, name: str) -> None:
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(one for one in folders if one not in _LEFT_OUT)
            for one in sorted(files):
                if not one.endswith((".a", ".opt-1.pyc", ".opt-2.pyc")):
                    path = Path(folder) / one
                    self.file(path, f"{name}/{path.relative_to(source)}")


def _fill(tar: Tar, app: Path, extras: Iterable[str]) -> None:
    for name, mode in (("tmp", 0o1777), ("run/fleet", 0o777), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)):
        tar.folder(name, mode)
    tar.text("etc/passwd", f"root:x:0:0::/root:/bin/sh\nfleet:x:{USER}:{USER}::/tmp:/bin/sh\n")
    tar.text("etc/group", f"root:x:0:\nfleet:x:{USER}:\n")
    for library in sorted({*python(tar), *tools(tar, _TOOLS), *_packages(tar, extras)}):
        tar.file(Path(library), library)
    tar.tree(Path("/usr/share/zoneinfo"), "usr/share/zoneinfo")
    tar.tree(Path(fleet.__file__).parent, f"{SITE}/fleet")
    tar.tree(Path(pools.__file__).parent, f"{SITE}/pools")
    tar.tree(app, "app")


def python(tar: Tar) -> Iterator[str]:
    """The interpreter at its own path, so that it finds its library; yields the libraries that it needs."""
    binary = Path(sys.executable).resolve()
    tar.file(binary, str(binary))
    tar.tree(STANDARD, str(STANDARD))
    for name in ("python3", "python"):
        tar.link(f"usr/local/bin/{name}", str(binary))
    yield from libraries([binary, *STANDARD.glob("lib-dynload/*.so")])


def tools(tar: Tar, names: Iterable[str]) -> Iterator[str]:
    """Programs of this machine; yields the libraries that they need."""
    folders = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
    found = [path for name in names for folder in folders if (path := Path(folder) / name).exists()]
    for path in found:
        tar.file(path, f"usr/bin/{path.name}")
    for name in ("bin", "lib", "lib64", "sbin"):  # as on this machine, where /bin may be a link to usr/bin
        if Path(f"/{name}").is_symlink():
            tar.link(name, os.readlink(f"/{name}"))
        elif name == "bin":
            tar.file(Path("/bin/sh"), "bin/sh")
    yield from libraries(found)


def _packages(tar: Tar, extras: Iterable[str]) -> Iterator[str]:
    """What fleet needs, as it is installed here."""
    native: list[Path] = []
    required = needed("workerfleet", frozenset(extras))
    for distribution in (metadata.distribution("workerfleet"), *required):
        for script in distribution.entry_points.select(group="console_scripts"):
            tar.text(f"usr/local/bin/{script.name}", _SCRIPT.format(script.module, script.attr), mode=0o755)
    for distribution in required:
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                tar.file(source, f"{SITE}/{file}")
                native += [source] if ".so" in source.name else []
    yield from libraries(native)


def needed(name: str, extras: frozenset[str]) -> list[metadata.Distribution]:
    """The distributions that one requires with these extras; without itself, because it may be installed in place."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, extras)]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            distribution = metadata.distribution(one[0])
        except metadata.PackageNotFoundError:  # for another platform or Python
            continue
        if one[0] != name:
            found[one[0]] = distribution
        for text in distribution.requires or ():
            wanted, _, marker = text.partition(";")
            extra = re.search(r"""extra\s*==\s*["']([^"']+)""", marker)
            if extra is None or extra[1] in one[1]:
                matched = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", wanted)
                assert matched is not None
                more = frozenset(part.strip() for part in (matched[2] or "").split(",") if part.strip())
                waiting.append((re.sub(r"[-_.]+", "-", matched[1]).lower(), more))
    return [found[one] for one in sorted(found)]


def libraries(binaries: Iterable[Path]) -> Iterator[str]:
    """The shared libraries that programs load, with the loader itself, at the paths where it looks for them."""
    every = [str(one) for one in binaries]
    if not every:
        return
    said = subprocess.run(["ldd", *every], capture_output=True, text=True, check=False).stdout
    for path in re.findall(r"(?:=> )?(/\S+) \(0x", said):
        yield os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
