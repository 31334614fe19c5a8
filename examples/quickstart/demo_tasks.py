"""The tasks of the demo: real work on the real files of this repository.

The same functions run in a solo worker and in a child of a prefork worker; a task never knows which.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import subprocess
import tempfile
import tokenize
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

from fleet import Tasks

ROOT = Path(__file__).resolve().parents[2]
tasks = Tasks("demo")


@cache
def sources() -> list[Path]:
    """Every Python file of the project that is worth reading."""
    return sorted(
        path for part in ("fleet", "pools") for path in (ROOT / part).rglob("*.py") if path.stat().st_size > 500
    )


def tokens_in(path: Path) -> int:
    """How many tokens a Python file has."""
    return sum(1 for _ in tokenize.generate_tokens(io.StringIO(path.read_text()).readline))


@tasks.task
def measure() -> dict[str, object]:
    """Work for the processor: the tokens, the compressed size and the checksum of a source file."""
    path = random.choice(sources())
    data = path.read_bytes()
    packed = len(zlib.compress(data, 9))
    return {"file": path.name, "tokens": tokens_in(path), "packed": packed, "sha256": hashlib.sha256(data).hexdigest()}


@tasks.task
def copy() -> int:
    """Work for the disk: a few source files into one archive that is really on disk when the task ends."""
    with tempfile.TemporaryFile() as archive:
        for path in random.sample(sources(), 5):
            archive.write(path.read_bytes())
        archive.flush()
        os.fsync(archive.fileno())
        return archive.tell()


@tasks.task
def ask() -> int:
    """Waiting: another program counts the lines of a source file."""
    counted = subprocess.run(["wc", "-l", random.choice(sources())], capture_output=True, text=True, check=True)
    return int(counted.stdout.split()[0])


@tasks.task
def index() -> int:
    """Four processes inside one task: the tokens of a good part of the project."""
    with ProcessPoolExecutor(max_workers=4) as pool:
        return sum(pool.map(tokens_in, sources()[:24], chunksize=6))
