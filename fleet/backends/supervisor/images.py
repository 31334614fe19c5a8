"""Has the images ready that workers are about to be forked from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.replica import image as images
from fleet.replica import launch_document
from fleet.replica.image import ImageFiles
from fleet.replica.launch_document import DocumentError, LaunchDocument
from fleet.state.files import write_all
from fleet.state.paths import Places

LEAST_WORKERS = 2
"""An image costs as much as a worker, so a single one starts by itself."""
LOAD_SECONDS = 30.0
RETRY_SECONDS = 600.0
_POLL_SECONDS = 0.01


class Images:
    """The images of one fleet, seen from the command that starts workers."""

    def __init__(self, places: Places, rpc: SupervisorRpc) -> None:
        self._places = places
        self._rpc = rpc
        self._keys: dict[Path, tuple[images.Stamp | None, str]] = {}

    def preload(self, documents: Iterable[LaunchDocument]) -> None:
        """Start what images the replicas of these documents will lack, and do not wait. Raises FleetError."""
        documents = list(documents)
        keys = [images.key_of(document) for document in documents]
        workers = Counter(keys)
        for key, document in dict(zip(keys, documents, strict=True)).items():
            if not key or workers[key] < LEAST_WORKERS or self._is_settled(key) or self._is_loading(key):
                continue
            files = self._files(key)
            files.state.unlink(missing_ok=True)
            write_all({files.preloaded: document.to_bytes()})
            self._rpc.start_image(files.preloaded, digest=document.digest)

    def make_ready(self, replicas: Iterable[str]) -> None:
        """Start what images these replicas lack, and wait until they can be forked or it is known that they cannot.

        Workers start also where there is none, so nothing here is an error.
        """
        keys = {path.stem: self._key(path) for path in self._places.specs.glob("*.json")}
        workers = Counter(keys.values())
        wanted = {keys[name]: name for name in replicas if keys.get(name) and workers[keys[name]] >= LEAST_WORKERS}
        asked = [key for key, name in wanted.items() if not self._is_settled(key) and self._start(name)]
        end = time.monotonic() + LOAD_SECONDS
        while any(self._is_loading(key) for key in asked) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        for key in wanted:
            self._files(key).preloaded.unlink(missing_ok=True)  # of an image that ended before it could

    def _start(self, replica: str) -> bool:
        document = _read(self._places.spec_file(replica))
        if document is None:
            return False
        files = self._files(images.key_of(document))
        state = images.read_state(files)
        if state is None or state.phase != "loading" or not state.lives:
            files.state.unlink(missing_ok=True)
        return self._rpc.start_image(document.path, digest=document.digest)

    def _is_settled(self, key: str) -> bool:
        """Whether it can be forked from, or cannot and would not after another try."""
        files = self._files(key)
        state = images.read_state(files)
        if state is None or not state.is_current:
            return False
        if state.phase == "ready":
            return state.lives
        return state.phase != "loading" and time.time() - files.state.stat().st_mtime < RETRY_SECONDS

    def _is_loading(self, key: str) -> bool:
        state = images.read_state(self._files(key))
        return state is not None and state.phase == "loading" and state.lives

    def _files(self, key: str) -> ImageFiles:
        return ImageFiles(self._places.images, key)

    def _key(self, path: Path) -> str:
        stamp = images.stamp(str(path))
        known = self._keys.get(path)
        if known is None or known[0] != stamp:
            document = _read(path)
            known = self._keys[path] = (stamp, images.key_of(document) if document is not None else "")
        return known[1]


def _read(path: Path) -> LaunchDocument | None:
    try:
        return launch_document.read(path)
    except DocumentError:
        return None
