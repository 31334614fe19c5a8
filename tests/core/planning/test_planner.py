"""The plan, as text: what happens to which replica, why, and after what."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest

from fleet.core.desired import BROKER_GROUP, Desired, DesiredGroup, RolloutPolicy
from fleet.core.observed import Observed, ObservedReplica, State, Stray
from fleet.core.plan import Action, Plan
from fleet.core.planning import plan_text
from fleet.core.planning.planner import plan
from fleet.core.planning.steering import steered
from fleet.core.spec import BrokerSpec, QueueSpec, RestartPolicy, TaskPolicy, WorkerSpec, live_digest
from tests.worlds import FLEET, but, fleet, group, planned, running, without

TEN = group("thumbs", *[1] * 10)
EMPTY = Observed(FLEET)


def steps_text(todo: Plan) -> str:
    """Only the lines of steps and notes."""
    return plan_text.text(replace(todo, usage=(), worst_case_seconds=0.0), verbose=True)


def is_text(todo: Plan, golden: str) -> None:
    assert steps_text(todo) == dedent(golden).lstrip("\n")


def test_a_fleet_that_does_not_run_is_started() -> None:
    is_text(
        planned(fleet(group("thumbs", 1, 1), group("reports", 10, pool="prefork")), EMPTY),
        """
        + reports.0  start  not running yet
        + thumbs.0   start  none of 2 is running yet
        + thumbs.1   start  none of 2 is running yet

        Plan: 3 to start.
        """,
    )


def test_scale_up_starts_the_new_ones_and_nothing_else() -> None:
    is_text(
        planned(fleet(group("thumbs", *[1] * 12)), running(TEN)),
        """
        = thumbs.0 … thumbs.9  keep   up to date
        + thumbs.10            start  scale up 10 -> 12
        + thumbs.11            start  scale up 10 -> 12

        Plan: 2 to start, 10 untouched.
        """,
    )


def test_scale_in_leaves_survivors_alone_and_takes_the_idle_ones() -> None:
    seen = but(but(running(TEN), "thumbs.9", busy=1), "thumbs.8", busy=1)

    is_text(
        planned(fleet(group("thumbs", *[1] * 7)), seen),
        """
        = thumbs.0 … thumbs.4  keep   up to date
        - thumbs.5             drain  scale down 10 -> 7
        - thumbs.6             drain  scale down 10 -> 7
        - thumbs.7             drain  scale down 10 -> 7
        = thumbs.8, thumbs.9   keep   up to date

        Plan: 3 to stop, 7 untouched.
        """,
    )


def test_on_scale_in_the_dead_go_before_the_outdated_and_the_outdated_before_the_idle() -> None:
    seen = but(running(group("thumbs", *[1] * 5)), "thumbs.0", state=State.FAILED, pid=None)
    seen = but(but(seen, "thumbs.1", digest="0ld0ld00", spec=None, busy=1), "thumbs.2", busy=1)

    gone = [step.replica for step in planned(fleet(group("thumbs", 1, 1)), seen).changes]

    assert gone == ["thumbs.0", "thumbs.1", "thumbs.4"]


def test_new_replicas_take_the_lowest_free_index_and_nobody_is_renumbered() -> None:
    seen = without(running(TEN), "thumbs.3", "thumbs.7")

    is_text(
        planned(fleet(group("thumbs", *[1] * 11)), seen),
        """
        = thumbs.0 … thumbs.2  keep   up to date
        + thumbs.3             start  scale up 8 -> 11
        = thumbs.4 … thumbs.6  keep   up to date
        + thumbs.7             start  scale up 8 -> 11
        = thumbs.8, thumbs.9   keep   up to date
        + thumbs.10            start  scale up 8 -> 11

        Plan: 3 to start, 8 untouched.
        """,
    )


def test_ten_solos_roll_with_one_spare_and_a_quarter_missing() -> None:
    is_text(
        planned(fleet(group("thumbs", *[1] * 10, env={"POOL_SIZE": "20"})), running(TEN)),
        """
        + thumbs.10  start    spare while thumbs rolls
        ± thumbs.0   replace  env.POOL_SIZE set  (after thumbs.10)
        ± thumbs.1   replace  env.POOL_SIZE set  (after thumbs.10)
        ± thumbs.2   replace  env.POOL_SIZE set  (after thumbs.10)
        ± thumbs.3   replace  env.POOL_SIZE set  (after thumbs.0 … thumbs.2)
        ± thumbs.4   replace  env.POOL_SIZE set  (after thumbs.0 … thumbs.2)
        ± thumbs.5   replace  env.POOL_SIZE set  (after thumbs.0 … thumbs.2)
        ± thumbs.6   replace  env.POOL_SIZE set  (after thumbs.3 … thumbs.5)
        ± thumbs.7   replace  env.POOL_SIZE set  (after thumbs.3 … thumbs.5)
        ± thumbs.8   replace  env.POOL_SIZE set  (after thumbs.3 … thumbs.5)
        ± thumbs.9   replace  env.POOL_SIZE set  (after thumbs.6 … thumbs.8)
        - thumbs.10  drain    the spare is not needed any more  (after thumbs.9)

        Plan: 10 to replace.
        """,
    )


def test_one_big_worker_rolls_behind_its_spare() -> None:
    old = group("reports", 10, pool="prefork", env={"POOL_SIZE": "10"})
    new = group("reports", 10, pool="prefork", env={"POOL_SIZE": "20"})

    is_text(
        planned(fleet(new), running(old)),
        """
        + reports.1  start    spare while reports rolls
        ± reports.0  replace  env.POOL_SIZE changed  (after reports.1)
        - reports.1  drain    the spare is not needed any more  (after reports.0)

        Plan: 1 to replace.
        """,
    )


def test_a_rollout_cut_short_goes_on_with_its_spare() -> None:
    old, new = group("reports", 10, pool="prefork"), group("reports", 10, pool="prefork", env={"A": "1"})
    spare = next(step.target for step in planned(fleet(new), running(old)).changes if step.action is Action.START)
    assert spare is not None
    both = running(old)
    starting = ObservedReplica("reports", 1, spare.digest, State.STARTING, pid=101, spec=spare.spec)

    is_text(
        planned(fleet(new), replace(both, replicas={**both.replicas, "reports.1": starting})),
        """
        + reports.1  start  is starting: the rest of reports waits for it
        - reports.0  drain  scale down 2 -> 1  (after reports.1)

        Plan: 1 to start, 1 to stop.
        """,
    )


def test_recreate_stops_all_before_it_starts_any() -> None:
    recreate = RolloutPolicy("recreate", 0, 1)
    old, new = (group("beat", 1, 1, env={"A": value}, rollout=recreate) for value in "12")

    is_text(
        planned(fleet(new), running(old)),
        """
        - beat.0  drain  env.A changed
        - beat.1  drain  env.A changed
        + beat.0  start  env.A changed  (after beat.0, beat.1)
        + beat.1  start  env.A changed  (after beat.0, beat.1)

        Plan: 2 to replace.
        """,
    )


def test_recreate_of_one_replica_is_a_replacement() -> None:
    recreate = RolloutPolicy("recreate", 0, 1)
    old, new = (group("beat", 1, env={"A": value}, rollout=recreate) for value in "12")

    is_text(
        planned(fleet(new), running(old)),
        """
        ± beat.0  replace  env.A changed

        Plan: 1 to replace.
        """,
    )


def test_outdated_replicas_that_do_no_work_are_replaced_at_once() -> None:
    careful = RolloutPolicy(max_surge=0, max_unavailable=1)
    old, new = (group("thumbs", *[1] * 4, env={"A": value}, rollout=careful) for value in "12")
    seen = but(but(running(old), "thumbs.1", state=State.FAILED, pid=None), "thumbs.2", state=State.STARTING)

    waves = {step.replica: step.wave for step in planned(fleet(new), seen).changes}

    assert waves == {"thumbs.1": 0, "thumbs.2": 0, "thumbs.0": 1, "thumbs.3": 2}


def test_orphans_are_reported_and_kept() -> None:
    is_text(
        planned(fleet(group("thumbs", 1)), running(group("thumbs", 1), group("old", 1, 1))),
        """
        = old.0, old.1  keep  not in the manifest
        = thumbs.0      keep  up to date

        note: 2 replicas of 'old' are not in the manifest; add --prune to remove them

        Nothing to do.
        """,
    )


def test_prune_drains_orphans_after_everything_else_came() -> None:
    seen = but(running(group("thumbs", 1), group("old", 1, 1)), "old.1", state=State.STOPPED, pid=None)

    is_text(
        planned(fleet(group("thumbs", 1, 1)), seen, prune=True),
        """
        = thumbs.0  keep    up to date
        + thumbs.1  start   scale up 1 -> 2
        - old.0     drain   not in the manifest (prune)  (after thumbs.1)
        - old.1     forget  not in the manifest (prune)  (after thumbs.1)

        Plan: 1 to start, 2 to stop, 1 untouched.
        """,
    )


def test_down_drains_everything_and_the_broker_last() -> None:
    seen = running(group("thumbs", 1, 1), group(BROKER_GROUP, 1))

    is_text(
        planned(Desired(FLEET), seen, prune=True),
        """
        - thumbs.0        drain  the fleet goes down
        - thumbs.1        drain  the fleet goes down
        - fleet-broker.0  drain  the fleet goes down  (after thumbs.0, thumbs.1)

        Plan: 3 to stop.
        """,
    )


def test_the_broker_and_dependencies_come_first() -> None:
    todo = planned(
        fleet(
            group(BROKER_GROUP, 1, system=True),
            group("beat", 1, depends_on=(BROKER_GROUP, "thumbs")),
            group("thumbs", 1, 1, depends_on=(BROKER_GROUP,)),
        ),
        EMPTY,
    )

    is_text(
        todo,
        """
        + fleet-broker.0  start  not running yet
        + thumbs.0        start  none of 2 is running yet  (after fleet-broker.0)
        + thumbs.1        start  none of 2 is running yet  (after fleet-broker.0)
        + beat.0          start  not running yet  (after fleet-broker.0, thumbs.0, thumbs.1)

        Plan: 4 to start.
        """,
    )


def test_a_dependency_that_is_up_is_waited_for_through() -> None:
    wanted = fleet(
        group("a", 1, env={"A": "1"}, rollout=RolloutPolicy("recreate", 0, 1)),
        group("b", 1, depends_on=("a",)),
        group("c", 1, depends_on=("b",)),
    )

    todo = planned(wanted, without(running(group("a", 1), group("b", 1)), "c.0"))

    assert [(step.replica, step.wave, step.after) for step in todo.changes] == [
        ("a.0", 0, ()),
        ("c.0", 1, ("replace a.0",)),
    ]


def test_a_paused_group_goes_before_what_it_depends_on() -> None:
    wanted = fleet(group("db", paused=True), group("web", paused=True, depends_on=("db",)))

    is_text(
        planned(wanted, running(group("db", 1), group("web", 1))),
        """
        - web.0  drain  the group is paused
        - db.0   drain  the group is paused  (after web.0)

        Plan: 2 to stop.
        """,
    )


def test_strays_are_ended_before_their_replica_starts() -> None:
    seen = Observed(FLEET, strays=(Stray(812, "thumbs.0", "orphan"), Stray(811, "gone.4", "duplicate")))

    is_text(
        planned(fleet(group("thumbs", 1)), seen),
        """
        ! gone.4 (pid 811)    reap   duplicate: not the process its supervisor runs
        ! thumbs.0 (pid 812)  reap   orphan: not the process its supervisor runs
        + thumbs.0            start  not running yet  (after thumbs.0@812)

        Plan: 1 to start, 2 to reap.
        """,
    )


def test_what_stopped_runs_again() -> None:
    seen = running(group("thumbs", *[1] * 5))
    seen = but(seen, "thumbs.0", state=State.STOPPED, pid=None)
    seen = but(seen, "thumbs.1", state=State.FAILED, pid=None, note="exit 1, 8 times in 10m")
    seen = but(seen, "thumbs.2", state=State.DRAINING)
    seen = but(but(seen, "thumbs.3", state=State.STARTING), "thumbs.4", state=State.UNKNOWN)

    is_text(
        planned(fleet(group("thumbs", *[1] * 5)), seen),
        """
        + thumbs.0            start    stopped by hand
        ↻ thumbs.1            restart  parked after too many crashes: exit 1, 8 times in 10m
        ↻ thumbs.2            restart  it is leaving, and wanted
        = thumbs.3, thumbs.4  keep     up to date

        Plan: 1 to start, 2 to restart, 2 untouched.
        """,
    )


def test_a_restart_rolls_like_a_replacement() -> None:
    todo = planned(fleet(group("thumbs", 1, 1)), running(group("thumbs", 1, 1)), restart=frozenset({"thumbs"}))

    is_text(
        todo,
        """
        + thumbs.2  start    spare while thumbs rolls
        ↻ thumbs.0  restart  restart requested  (after thumbs.2)
        ↻ thumbs.1  restart  restart requested  (after thumbs.0)
        - thumbs.2  drain    the spare is not needed any more  (after thumbs.1)

        Plan: 2 to restart.
        """,
    )


def test_one_replica_can_be_restarted_alone() -> None:
    todo = plan(fleet(TEN), running(TEN), restart=frozenset({"thumbs.4"}))

    assert [(step.action, step.replica) for step in todo.changes] == [(Action.RESTART, "thumbs.4")]


def test_drained_replicas_are_held_and_others_released() -> None:
    wanted = fleet(group("thumbs", 1, 1, 1), drained=frozenset({"thumbs.0", "thumbs.2"}))
    seen = but(without(running(group("thumbs", 1, 1, 1)), "thumbs.2"), "thumbs.1", held=True)

    is_text(
        planned(wanted, seen),
        """
        ‖ thumbs.0  hold     drained by hand: takes no work
        ▸ thumbs.1  release  takes work again
        + thumbs.2  start    scale up 2 -> 3
        ‖ thumbs.2  hold     drained by hand: takes no work  (after thumbs.0 … thumbs.2)

        Plan: 1 to start, 1 to hold, 1 to release.
        """,
    )


def test_a_held_replica_that_is_wanted_held_is_left_alone_even_while_it_drains() -> None:
    wanted = fleet(group("thumbs", 1), drained=frozenset({"thumbs"}))

    assert planned(wanted, but(running(group("thumbs", 1)), "thumbs.0", held=True, state=State.DRAINING)).is_empty


@pytest.mark.parametrize(("state", "again"), [(State.STOPPED, "start"), (State.FAILED, "restart")])
def test_a_replica_that_was_held_when_it_stopped_takes_work_once_it_runs_again(state: State, again: str) -> None:
    """Its record keeps the hold over a restart: held, it would count as on its way out, and never come to rest."""
    seen = but(running(group("thumbs", 1)), "thumbs.0", held=True, state=state, pid=None)

    todo = planned(fleet(group("thumbs", 1)), seen)

    assert {step.id: step.after for step in todo.changes} == {f"{again} thumbs.0": (), "release thumbs.0": ()}


def test_a_smaller_last_replica_changes_least() -> None:
    wanted, seen = group("mail", 8, 8, 4, pool="threads"), running(group("mail", 8, 8, 8, pool="threads"))

    is_text(
        planned(fleet(wanted), but(seen, "mail.1", busy=3)),
        """
        = mail.0, mail.1  keep    up to date
        ~ mail.2          resize  pool.concurrency 8 -> 4

        Plan: 1 to resize, 2 untouched.
        """,
    )


def test_another_concurrency_is_one_resize_where_the_pool_allows_it_and_a_replacement_elsewhere() -> None:
    def plan_of(pool: str) -> list[str]:
        seen = running(group("reports", 10, pool=pool))
        return [step.id for step in planned(fleet(group("reports", 12, pool=pool)), seen).changes]

    assert plan_of("prefork") == ["resize reports.0"]
    assert plan_of("custom") == ["start reports.1", "replace reports.0", "drain reports.1"]


def test_a_celery_worker_is_replaced_whatever_changes() -> None:
    def celery(size: int) -> DesiredGroup:
        one = group("shop", size, pool="prefork")
        return replace(one, spec=replace(one.spec, kind="celery"))

    todo = planned(fleet(celery(12)), running(celery(10)))

    assert [step.id for step in todo.changes] == ["start shop.1", "replace shop.0", "drain shop.1"]


def test_slots_are_given_up_before_others_take_them() -> None:
    old = [group(name, size, pool="prefork") for name, size in (("a", 4), ("b", 8), ("c", 3))]
    new = [group(name, size, pool="prefork") for name, size in (("a", 8), ("b", 4), ("c", 3))]

    is_text(
        planned(fleet(*new), running(*old)),
        """
        ~ b.0  resize  pool.concurrency 8 -> 4
        = c.0  keep    up to date
        ~ a.0  resize  pool.concurrency 4 -> 8  (after b.0)

        Plan: 2 to resize, 1 untouched.
        """,
    )


def test_settings_of_what_runs_change_in_place() -> None:
    old = group("mail", 8, pool="threads")
    settings: dict[str, Any] = {
        "queues": (QueueSpec("b"),),
        "task": TaskPolicy(60.0, rate_limits=(("t", "1/s"),)),
        "log_level": "DEBUG",
    }
    new = replace(old, spec=replace(old.spec, **settings))

    is_text(
        planned(fleet(new), running(old)),
        """
        ~ mail.0  resize  task.timeLimit none -> 1m, logging.level INFO -> DEBUG, task.rateLimits.t none -> 1/s, \
queues +b

        Plan: 1 to resize.
        """.replace("\\\n", ""),
    )


def test_the_restart_policy_of_a_command_needs_no_restart() -> None:
    spec = WorkerSpec("command", FLEET, "beat", command=("beat",))
    old, new = (DesiredGroup("beat", replace(spec, restart=RestartPolicy(max_crashes=n)), (1,)) for n in (8, 3))

    (step,) = planned(fleet(new), running(old)).changes

    assert (step.id, step.reason) == ("resize beat.0", "restart.maxCrashes 8 -> 3")


def test_slots_changed_by_hand_are_drift() -> None:
    one = group("mail", 2, pool="prefork")
    by_hand = replace(one.spec, pool=replace(one.spec.pool, concurrency=5))

    (step,) = planned(fleet(one), but(running(one), "mail.0", slots=5, live=live_digest(by_hand))).changes

    assert (step.id, step.reason) == (
        "resize mail.0",
        "pool.concurrency 5 -> 2: changed by hand, or not applied yet",
    )


def test_a_lost_launch_document_is_written_again_without_a_restart() -> None:
    one = group("mail", 2, pool="prefork")

    (step,) = planned(fleet(one), but(running(one), "mail.0", spec=None)).changes

    assert (step.id, step.reason) == ("resize mail.0", "its launch document is lost")


def test_a_restart_by_hand_writes_a_lost_launch_document_again() -> None:
    one = group("mail", 2, pool="prefork")

    steps = steered(fleet(one), but(running(one), "mail.0", spec=None), only=["mail"], restart=["mail"]).changes

    targets = [step.target for step in steps if step.id == "restart mail.0"]
    assert [target.spec for target in targets if target] == [one.spec]


def test_what_is_replaced_anyway_is_not_resized_too() -> None:
    old, new = group("mail", 2, pool="prefork"), group("mail", 5, pool="prefork", env={"A": "1"})

    todo = planned(fleet(new), running(old))

    assert [step.id for step in todo.changes] == ["start mail.1", "replace mail.0", "drain mail.1"]
    assert todo.changes[1].reason == "env.A set, pool.concurrency 2 -> 5"


def test_a_stopped_or_parked_replica_is_run_with_its_new_size() -> None:
    old, new = group("mail", 2, pool="prefork"), group("mail", 5, pool="prefork")
    for state, step_id in ((State.STOPPED, "start mail.0"), (State.FAILED, "restart mail.0")):
        seen = but(running(old), "mail.0", state=state, pid=None, live="")
        (step,) = planned(fleet(new), seen).changes
        assert step.id == step_id
        assert step.target is not None
        assert step.target.spec.pool.concurrency == 5


def test_a_replica_is_resized_and_held_in_one_plan() -> None:
    old, new = group("mail", 2, pool="prefork"), group("mail", 5, pool="prefork")

    todo = planned(fleet(new, drained=frozenset({"mail"})), running(old))

    assert {step.id for step in todo.changes} == {"resize mail.0", "hold mail.0"}
    assert plan_text.summary(todo)["resize"] == 1


def test_a_group_grows_when_what_it_depends_on_is_up() -> None:
    old = group("late", 2, pool="prefork", depends_on=("base",))
    new = group("late", 5, pool="prefork", depends_on=("base",))

    todo = planned(fleet(new, group("base", 1)), running(old))

    assert [(step.id, step.after) for step in todo.changes] == [
        ("start base.0", ()),
        ("resize late.0", ("start base.0",)),
    ]


def test_a_smaller_replica_leaves_when_its_size_is_not_wanted_any_more() -> None:
    seen = but(running(group("mail", 8, 8, 4, pool="threads")), "mail.2", busy=4)

    gone = planned(fleet(group("mail", 8, 8, pool="threads")), seen).changes
    smaller = planned(fleet(group("mail", 8, 4, pool="threads")), seen).changes

    assert [(step.action, step.replica) for step in gone] == [(Action.DRAIN, "mail.2")]
    assert [(step.action, step.replica) for step in smaller] == [(Action.DRAIN, "mail.1")]


def reason_of(old: WorkerSpec, new: WorkerSpec) -> str:
    before, after = (DesiredGroup("g", replace(spec, group="g"), (spec.pool.concurrency,)) for spec in (old, new))
    (step,) = plan(fleet(after), running(before)).changes
    return step.reason


SPEC = group("g", 1).spec


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"env": (("A", "1"),)}, {"env": (("A", "2"),)}, "env.A changed"),
        ({"env": (("A", "1"),)}, {}, "env.A removed"),
        ({}, {"env": (("A", 'a;b "c" %(x)s\n\x1b[31m'),)}, "env.A set"),
        ({}, {"env": (("A", "x" * 100),)}, "env.A set"),
        (
            {"task": TaskPolicy(time_limit_seconds=1800)},
            {"task": TaskPolicy(time_limit_seconds=3600)},
            "task.timeLimit 30m -> 1h",
        ),
        ({}, {"task": TaskPolicy(soft_time_limit_seconds=90)}, "task.softTimeLimit none -> 1m30s"),
        (
            {"secret_env": (("X", "db-url", "aa"),)},
            {"secret_env": (("X", "db-url", "bb"),)},
            "secretEnv.X: secret 'db-url' changed",
        ),
        ({}, {"secret_env": (("X", "db-url", "bb"),)}, "secretEnv.X: added"),
        (
            {"broker": BrokerSpec(url="redis://:hunter2@a")},
            {"broker": BrokerSpec(url="redis://:hunter2@b")},
            "broker.url changed",
        ),
        (
            {"broker": BrokerSpec("", "url", "aa")},
            {"broker": BrokerSpec("", "url", "bb")},
            "broker.url: secret 'url' changed",
        ),
        (
            {"queues": (QueueSpec("a"), QueueSpec("b"))},
            {"queues": (QueueSpec("a", 5), QueueSpec("c"))},
            "queues +c -b, queues.a.priority 0 -> 5",
        ),
        ({"revision": "1"}, {"revision": "2"}, 'release.revision "1" -> "2"'),
        ({}, {"kind": "celery"}, "worker fleet -> celery"),
        (
            {},
            {"env": tuple((name, "1") for name in "ABCDEF")},
            "env.A set, env.B set, env.C set, env.D set and 2 more",
        ),
    ],
)
def test_a_replacement_names_the_fields_that_changed(
    old: dict[str, object], new: dict[str, object], reason: str
) -> None:
    assert reason_of(replace(SPEC, **old), replace(SPEC, **new)) == reason  # type: ignore[arg-type]


def test_a_replica_whose_spec_was_lost_is_replaced_by_digest() -> None:
    seen = but(running(group("thumbs", 1)), "thumbs.0", digest="0ld0ld00", spec=None)
    wanted = group("thumbs", 1)

    (step,) = plan(fleet(wanted), seen).changes

    assert step.reason.startswith("spec 0ld0ld00 -> ")


def test_rollout_policy_and_counts_do_not_change_the_digest() -> None:
    other = group("thumbs", *[1] * 10, rollout=RolloutPolicy("rolling", 3, 3), ready_timeout_seconds=7.0)

    assert planned(fleet(other), running(TEN)).is_empty


def test_the_json_plan_is_the_contract() -> None:
    document = plan_text.document(planned(fleet(group("thumbs", *[1] * 12)), running(TEN)))

    assert document["fleet"] == "shop"
    assert document["summary"] == {"start": 2, "replace": 0, "resize": 0, "restart": 0, "stop": 0, "keep": 10}
    assert document["steps"] == [
        {"replica": "thumbs.10", "action": "start", "reason": "scale up 10 -> 12", "after": []},
        {"replica": "thumbs.11", "action": "start", "reason": "scale up 10 -> 12", "after": []},
    ]


def test_the_text_ends_with_budgets_summary_and_longest_time() -> None:
    old = group("reports", 10, pool="prefork")
    text = plan_text.text(planned(fleet(group("reports", 10, pool="prefork", env={"A": "1"})), running(old)))

    assert text.endswith(
        dedent(
            """
            budget     at rest  at peak  limit
            slots           10       20      -
            processes       11       22      -

            Plan: 1 to replace.
            Takes 4m in the worst case.
            """
        )
    )


def test_nothing_to_do_is_said() -> None:
    assert plan_text.text(planned(fleet(TEN), running(TEN))) == "Nothing to do: 10 replicas as wanted.\n"


def test_colour_is_only_on_request() -> None:
    todo = planned(fleet(group("thumbs", 1)), EMPTY)

    assert "\033[" not in plan_text.text(todo)
    assert plan_text.text(todo, colour=True).startswith("\033[32m+ thumbs.0")


def test_a_thousand_replicas_are_planned() -> None:
    one_by_one = RolloutPolicy("rolling", 1, 0)
    old, new = (group("many", *[1] * 1000, env={"A": value}, rollout=one_by_one) for value in "12")

    todo = planned(fleet(new), running(old))

    assert len(todo.changes) == 1002
    assert todo.steps[-1].wave == 1001


def test_a_share_that_grows_resizes_its_smaller_replica_and_adds_another() -> None:
    old, new = group("mail", 8, 8, 3, pool="threads"), group("mail", 8, 8, 8, 1, pool="threads")

    todo = planned(fleet(new), running(old))

    assert [step.id for step in todo.changes] == ["start mail.3", "resize mail.2"]
    assert todo.changes[1].reason == "pool.concurrency 3 -> 8"


def test_the_controller_goes_without_prune_when_nothing_is_left_to_move() -> None:
    seen = running(group("thumbs", 1), group("fleet-controller", 1))

    steps = {step.id for step in planned(fleet(group("thumbs", 1)), seen).steps}
    assert steps == {"drain fleet-controller.0", "keep thumbs.0"}
