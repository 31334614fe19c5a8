"""Groups with several replicas in a pod, on their way to a cluster: they move by whole pods."""

from __future__ import annotations

import pytest
import yaml

from fleet.core.expand.in_cluster import pod_count
from fleet.core.manifest.parse import from_document
from fleet.core.migration.sizes import in_cluster, size_of
from fleet.core.migration.split import document_there
from fleet.core.migration.state import GroupState, Migration
from tests.core.texts import fleet

CLUSTER = "  broker: {url: redis://redis/0}\n  concurrency: 60\n  kubernetes: {image: x, groups: {a: {pack: 4}}}\n"


@pytest.mark.parametrize(
    ("group", "pods", "unit", "slots"),
    [
        ("pool: solo, replicas: 10, queues: [q]", 3, 4, 1),
        ("pool: {type: threads, concurrency: 3}, replicas: 8, queues: [q]", 2, 12, 3),
        ("pool: solo, share: {max: 11}, queues: [q]", 2, 4, 1),
    ],
)
def test_a_pod_has_the_slots_of_all_its_replicas(group: str, pods: int, unit: int, slots: int) -> None:
    given = yaml.safe_load(fleet(f"a: {{{group}}}").replace("  broker: embedded\n", CLUSTER))
    parsed = from_document(given, name="given")
    there = in_cluster(parsed.manifest).groups["a"]
    size = size_of(there, there, parsed.manifest)
    assert (size.pods, size.unit, size.concurrency) == (pods, unit, slots)

    for count in range(1, pods + 1):
        state = GroupState(count, size.unit, size.concurrency, 0, size.part_there, to="cluster")
        migration = Migration("shop", "here", "shop", "box", 0.0, "me", {"a": state})
        part = from_document(document_there(parsed.manifest, parsed.document, migration), name="part")
        assert pod_count(part.manifest, in_cluster(part.manifest).groups["a"]) == count
