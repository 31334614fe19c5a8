"""What ``fleet init`` writes: a commented manifest and a module of tasks, as texts. Nothing is written here."""

from __future__ import annotations

import json
import re

from fleet.core.manifest.models import API_VERSION, KIND

__all__ = ["MANIFEST_FILE", "SCHEMA_FILE", "TASKS_FILE", "files", "fleet_name"]

MANIFEST_FILE = "fleet.yaml"
TASKS_FILE = "tasks.py"
SCHEMA_FILE = "fleet.schema.json"

_MANIFEST = """\
# yaml-language-server: $schema={schema}
# A fleet: what runs, how many, and how. `fleet apply {manifest}` starts it; edit and apply again at any time.
apiVersion: {version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  app: tasks:tasks               # module:attribute, a fleet.Tasks registry or a Celery app
  release: {{workdir: .}}          # where the code is, relative to this file
  broker: embedded               # a Redis that fleet runs itself; or a map: {{url: redis://host/0}}
  defaults:                      # merged into every group
    drain: {{timeout: 30s}}        # how long a replica may take to finish what it runs
  groups:
    quick:                       # isolation: four processes, one task at a time in each
      pool: solo
      replicas: 4
      queues: [quick]
    heavy:                       # one process with two children, each replaced after 500 tasks
      pool: {{type: prefork, concurrency: 2, maxTasksPerChild: 500}}
      replicas: 1
      queues: [heavy]
      task: {{timeLimit: 10m}}     # a task that runs longer is ended
    # clock:                     # any other program
    #   command: [python3, clock.py]
    #   replicas: 1
"""

_TASKS = '''\
"""The tasks of this fleet: plain functions.

    fleet apply {manifest} --yes
    fleet send {manifest} tasks.add --queue quick --args '[2, 3]'
    fleet status {manifest}
"""

from __future__ import annotations

import hashlib

from fleet import Tasks

tasks = Tasks("{name}")


@tasks.task
def add(left: int, right: int) -> int:
    """The smallest task there is."""
    print(f"{{left}} + {{right}} = {{left + right}}", flush=True)
    return left + right


@tasks.task(queue="heavy", max_retries=5)
def work(rounds: int = 100_000) -> str:
    """Keep a processor busy. A task that raises is retried with growing pauses, then kept as a dead letter."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()
'''


def files(name: str) -> dict[str, str]:
    """File name -> text: a manifest that runs as it is, its tasks, and the schema that editors complete from."""
    from fleet.core.manifest.schema import json_schema

    known = {"manifest": MANIFEST_FILE, "schema": SCHEMA_FILE, "version": API_VERSION, "kind": KIND, "name": name}
    return {
        MANIFEST_FILE: _MANIFEST.format(**known),
        TASKS_FILE: _TASKS.format(**known),
        SCHEMA_FILE: json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
    }


def fleet_name(folder: str) -> str:
    """A name for a fleet from the name of its folder: ``My Shop`` -> ``my-shop``."""
    words = re.sub(r"[^a-z0-9]+", "-", folder.lower()).strip("-")
    name = re.sub(r"^[^a-z]+", "", words)[:31].rstrip("-")
    return name or "my-fleet"
