"""First container of a pod that waits for Jobs: ends with 0 once each selector has one that is complete.

``python -m fleet.wait_for_jobs SELECTOR…``, in a pod whose account may list Jobs. A Job that failed may be run again,
so this goes on to wait, and says what it waits for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fleet.backends.kubernetes.client import IN_CLUSTER, ApiRefused, Cluster, Place
from fleet.backends.kubernetes.jobs import TOKEN_FOLDER, age_key, failure, is_complete
from fleet.backends.kubernetes.kinds import JOB, label_of, name_of
from fleet.errors import FleetError, Unreachable

LOOK_SECONDS = 2.0


def main(selectors: Sequence[str]) -> int:
    """Wait; the exit code of the process."""
    if not selectors:
        print("usage: python -m fleet.wait_for_jobs SELECTOR...", file=sys.stderr)
        return 64
    try:
        namespace = (Path(TOKEN_FOLDER) / "namespace").read_text().strip()
        wait(Cluster(Place(IN_CLUSTER, namespace)), selectors, say=_say)
    except OSError as error:
        print(f"this process runs in no pod that may ask for Jobs: {error}", file=sys.stderr)
        return 1
    except FleetError as error:
        print(f"{error.message}\n  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def wait(
    cluster: Cluster,
    selectors: Sequence[str],
    *,
    say: Callable[[str], None],
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Until each selector has a Job that is complete. Raises FleetError where it may not look.

    say: told what is waited for, whenever that changes.
    """
    said = ""
    while (now := _waiting_for(cluster, selectors)) != "":
        if now != said:
            said = now
            say(now)
        sleep(LOOK_SECONDS)


def _waiting_for(cluster: Cluster, selectors: Sequence[str]) -> str:
    """What is not complete yet, in a sentence; empty where all is."""
    for selector in selectors:
        labels = dict(one.split("=", 1) for one in selector.split(","))
        try:
            found = cluster.objects(JOB, labels)
        except Unreachable as error:
            return f"the API server gives no answer: {error.message}"
        except ApiRefused as error:
            if error.status < 500:
                raise
            return f"the API server gives no answer: {error.message}"
        if any(map(is_complete, found)):
            continue
        job = max(found, key=age_key, default=None)
        if job is None:
            group = labels.get("app.kubernetes.io/name", "")
            return f"waiting for a Job of group {group} that runs for this version of the pods; there is none yet"
        why = failure(job)
        return f"waiting for Job {name_of(job)} of group {label_of(job, 'app.kubernetes.io/name')}" + (
            f", which failed: {why}" if why else ""
        )
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
