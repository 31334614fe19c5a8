"""What is known about a source, as ``fleet sync status`` shows it."""

from __future__ import annotations

from typing import Any

from fleet.operate.sync.following import suspension
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.state import SourcePlaces, read_fetched, read_orders, read_reconciled
from fleet.state.lock import is_held


def document(source: FleetSource, places: SourcePlaces, *, now: float) -> dict[str, Any]:
    """The document of ``fleet sync status -o json``. Raises FleetError for a damaged file."""
    fetched, reconciled, orders = read_fetched(places), read_reconciled(places), read_orders(places)
    conditions = [*fetched.conditions.to_json(), *reconciled.conditions.to_json()]
    return {
        "source": source.name,
        "fleet": fetched.fleet or reconciled.fleet,
        "follows": fetched.follows,
        "paths": list(source.spec.git.paths),
        "apply": source.spec.apply,
        "running": is_held(places.lock_file),
        "ready": all(one["status"] == "True" for one in conditions) and fetched.seen == reconciled.applied,
        "lastSeenRevision": fetched.seen,
        "lastAttemptedRevision": reconciled.attempted,
        "lastAppliedRevision": reconciled.applied,
        "lastAppliedAt": reconciled.applied_at,
        "fleetRevision": reconciled.revision,
        "subject": fetched.subject,
        "signer": fetched.signer,
        "suspended": suspension(source, orders, now),
        "approved": orders.approved,
        "conditions": conditions,
        "problems": list(fetched.problems),
        "plan": dict(reconciled.plan),
        "failures": {"fetch": fetched.failures, "fleet": reconciled.failures},
        "lookedAt": {"fetch": fetched.looked_at, "fleet": reconciled.looked_at},
    }
