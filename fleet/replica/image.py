"""The image of a kind of worker, as backend, plug-in and image know it: its key, its files, what it says of itself.

An image is one process that has imported an app and runs nothing; workers are forked from it. Replicas share one where
nothing differs that an import can see.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleet.core.spec import forks_from_image, patch_of
from fleet.replica import process_identity
from fleet.replica.command import LaunchError, environment
from fleet.replica.launch_document import LaunchDocument

OWN_VARIABLES = (
    *("FLEET_GROUP", "FLEET_REPLICA", "FLEET_INDEX", "FLEET_DIGEST", "FLEET_SPEC", "FLEET_RECORD", "FLEET_PID"),
)
"""What differs between two replicas of one image: it is not there while the image imports the app."""

STALE = b"stale"
REFUSED = b"refused"
GO = b"go"
REQUEST_BYTES = 8192
ROOM_VARIABLE = "FLEET_IMAGE_ROOM"
ROOM_BYTES = 1024
"""The first variable of an image's environment: each worker writes its mark in its place."""
Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Where one image keeps what it is reached by and what it says: in the fleet's ``run/images``, ``log``."""

    folder: Path
    key: str

    @property
    def socket(self) -> Path:
        return self.folder / self.key

    @property
    def state(self) -> Path:
        return self.folder / f"{self.key}.json"

    @property
    def preloaded(self) -> Path:
        """The launch document it is started by before any of its workers has one; the image removes it."""
        return self.folder / f"{self.key}.launch"

    @property
    def log(self) -> Path:
        return self.folder.parent.parent / "log" / f"image-{self.key}.log"


@dataclass(frozen=True, slots=True)
class ImageState:
    """What an image last said.

    ticks: when its process started, in clock ticks since boot.
    phase: loading, ready, refused (its app cannot be forked, ``reason`` says why), failed (it cannot be imported).
    files: what was read to import the app -> (modified in ns, bytes); None in its place: there was no such file.
    """

    key: str
    pid: int
    phase: str
    app: str = ""
    reason: str = ""
    ticks: int = 0
    revision: str = ""
    files: Mapping[str, Stamp | None] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As it is written."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values).encode()

    @property
    def lives(self) -> bool:
        """Whether the process it was written by is there."""
        return process_identity.lives(self.pid, self.ticks)

    @property
    def shown(self) -> str:
        """One line for people."""
        if self.phase in ("ready", "loading") and not self.lives:
            return f"image {self.key} of {self.app}: ended; the next start of a worker makes a new one"
        after = (
            "workers start without it" if self.is_current else "since then a file changed; the next start tries again"
        )
        reason = f" ({self.reason}); {after}" if self.reason else ""
        return f"image {self.key} of {self.app}: {self.phase}{f', pid {self.pid}' if self.lives else ''}{reason}"

    @property
    def is_current(self) -> bool:
        """Whether every file is as it was when the app was imported."""
        return all(stamp(path) == seen for path, seen in self.files.items())


def key_of(document: LaunchDocument) -> str:
    """Eight hex digits over what an import can see; ``""`` for a replica that starts without an image."""
    spec = document.spec
    if not forks_from_image(spec):
        return ""
    try:
        environ = environment(document, {})
    except LaunchError:
        return ""
    shared = sorted((name, value) for name, value in environ.items() if name not in OWN_VARIABLES)
    parts = [spec.python, spec.workdir, spec.revision, spec.code, spec.app, spec.broker.url.partition(":")[0], shared]
    if patch := patch_of(spec):
        parts.append(patch)
    if spec.merge_memory:
        parts.append("mergeMemory")  # what the image asks of the kernel holds for what is forked from it
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def files_of(document: LaunchDocument, key: str) -> ImageFiles:
    """The files of the image with this key, in the fleet of a replica."""
    return ImageFiles(document.run_folder / "images", key)


def read_state(files: ImageFiles) -> ImageState | None:
    """What the image last said; None where there was none."""
    try:
        values = json.loads(files.state.read_bytes())
        seen = {path: tuple(one) if one else None for path, one in values.pop("files").items()}
        return ImageState(**values, files=seen)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def write_state(files: ImageFiles, state: ImageState) -> None:
    """Say what the image is now."""
    fresh = files.folder / f".{files.key}.{os.getpid()}"
    fresh.write_bytes(replace(state, ticks=process_identity.started_ticks(state.pid) or 0).to_bytes())
    os.replace(fresh, files.state)


def states(folder: Path) -> tuple[ImageState, ...]:
    """What each image of a fleet last said, by key. ``folder`` is its ``run/images``."""
    found = (read_state(ImageFiles(folder, path.stem)) for path in sorted(folder.glob("*.json")))
    return tuple(state for state in found if state is not None)


def request(document: str, digest: str) -> bytes:
    """What an image is sent to fork the replica of a launch document."""
    return json.dumps({"document": document, "digest": digest}).encode()


def stamp(path: str) -> Stamp | None:
    """When a file was last changed, and its size; None without one."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def stamps(paths: Iterable[str]) -> dict[str, Stamp | None]:
    """The stamp of each of these files."""
    return {path: stamp(path) for path in sorted(set(paths))}
