"""What must hold for the cluster's part of every valid manifest while groups move."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.backends.kubernetes.objects import objects_of
from fleet.core.expand.in_cluster import desired_in_cluster, is_scaled
from fleet.core.manifest.models import Manifest
from fleet.core.manifest.parse import from_document
from fleet.core.migration.order import GroupFacts, arrived, at, begun, planned
from fleet.core.migration.positions import Position
from fleet.core.migration.sizes import in_cluster, size_of
from fleet.core.migration.split import document_there, groups_there, slots_there
from fleet.core.migration.state import CLUSTER, HOST, Migration, from_json, to_json
from fleet.errors import Refused
from tests.properties.manifests import manifests

NEW = Migration("shop", "here", "shop", "box", 0.0, "me")


def facts_of(manifest: Manifest) -> list[GroupFacts]:
    """Every group as it would move from a host of the same manifest."""
    desired = in_cluster(manifest)
    found = []
    for name, group in desired.groups.items():
        after = tuple(one for one in group.depends_on if desired.groups[one].spec.job)
        found.append(GroupFacts(name, size_of(group, group, manifest), after))
    return found


@st.composite
def migrations(draw: st.DrawFn, facts: list[GroupFacts]) -> Migration:
    """Groups that have arrived, in an order that a plan allows, and maybe one on its way."""
    made = NEW
    moves = [move for move in planned(facts, NEW, to=CLUSTER, budget=None).moves if not move.refused]
    for move in moves[: draw(st.integers(0, len(moves)))]:
        made = made.with_group(move.group, arrived(move.size))
    rest = [move for move in moves if move.group not in made.groups]
    if rest and draw(st.booleans()):
        position: Position = draw(st.sampled_from(rest[0].positions))
        made = made.with_group(rest[0].group, at(begun(rest[0].size), position))
    return made


@settings(max_examples=40)
@given(document=manifests(), data=st.data())
def test_the_part_that_is_there_is_a_manifest_of_its_own_within_its_slots(
    document: dict[str, Any], data: st.DataObject
) -> None:
    parsed = from_document(document, name="given")
    try:
        facts = facts_of(parsed.manifest)
    except Refused:
        return
    migration = data.draw(migrations(facts))
    assert from_json(to_json(migration)) == migration
    part = document_there(parsed.manifest, parsed.document, migration)
    assert set(part["spec"]["groups"]) == groups_there(parsed.manifest, migration)
    if not part["spec"]["groups"]:
        return
    found = from_document(part, name="part").manifest
    assert found.spec.concurrency == max(1, slots_there(migration))
    desired = desired_in_cluster(found)
    assert objects_of(found, desired, part)
    whole = desired_in_cluster(parsed.manifest)
    for name, group in desired.groups.items():
        state = migration.groups[name]
        if state.to and not group.spec.job and not group.paused:
            assert len(group.shape) == state.pods
        if not state.to and not is_scaled(found, group) and not group.paused:
            assert len(group.shape) == len(whole.groups[name].shape), "as it is in the end"
        assert group.slots <= state.slots_there or is_scaled(found, group)


@settings(max_examples=40)
@given(document=manifests())
def test_a_plan_moves_every_group_once_and_back_in_the_other_order(document: dict[str, Any]) -> None:
    manifest = from_document(document, name="given").manifest
    try:
        facts = facts_of(manifest)
    except Refused:
        return
    moves = planned(facts, NEW, to=CLUSTER, budget=None).moves
    assert sorted(move.group for move in moves) == sorted(one.name for one in facts)
    assert not any(move.refused for move in moves)
    state = NEW
    for move in moves:
        state = state.with_group(move.group, arrived(move.size))
    back = planned(facts, state, to=HOST, budget=None).moves
    assert [move.group for move in back] == [move.group for move in moves][::-1]
    assert not any(move.refused for move in back)
