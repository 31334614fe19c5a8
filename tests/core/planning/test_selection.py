"""Some groups out of a whole plan, and which replicas go for good."""

from __future__ import annotations

from dataclasses import replace

from fleet.core.planning.planner import plan
from fleet.core.planning.selection import leaving, limited, sharing
from tests.worlds import fleet, group, planned, running

SEVEN = [group(f"g{number}", 1) for number in range(7)]


def test_steps_of_other_groups_are_left_out_and_a_note_names_the_first_five() -> None:
    every = plan(fleet(*SEVEN, group("thumbs", 1, 1)), running())
    some = limited(every, {"thumbs"})

    assert [step.replica for step in some.steps] == ["thumbs.0", "thumbs.1"]
    assert some.notes[-1] == "left out: g0.0, g1.0, g2.0, g3.0, g4.0 and 2 more also differ; see `fleet plan`"


def test_fleets_own_programs_are_never_left_out() -> None:
    every = plan(fleet(group("fleet-broker", 1), group("thumbs", 1)), running())

    assert [step.replica for step in limited(every, ()).steps] == ["fleet-broker.0"]


def test_what_is_not_left_out_needs_no_note() -> None:
    every = plan(fleet(group("thumbs", 1)), running(group("thumbs", 1), group("mail", 1)))

    assert limited(every, {"thumbs"}).notes == every.notes


def test_replicas_that_go_without_another_in_their_place_leave_and_spares_do_not_count() -> None:
    before = running(group("thumbs", 1, 1, 1), group("mail", 1))
    shorter = group("thumbs", 1)
    other = group("mail", 1)
    other = replace(other, spec=replace(other.spec, env=(("A", "b"),)))
    todo = planned(fleet(shorter, other), before)

    assert "drain mail.1" in [step.id for step in todo.steps], "the spare"
    assert leaving(todo) == ["thumbs.1", "thumbs.2"]


def test_groups_with_a_fixed_replica_count_share_nothing() -> None:
    shared = replace(group("mail", 1), scaling="concurrency")

    assert sharing(fleet(replace(group("thumbs", 1), scaling="replicas"), shared)) == {"mail"}
