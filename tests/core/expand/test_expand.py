"""From a manifest as people write it to replicas: specs, shapes, defaults, overrides, refusals."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from typing import Any

import pytest

from fleet.core.desired import BROKER_GROUP, Desired, RolloutPolicy
from fleet.core.expand import explain
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import AppFacts, Facts, Overrides
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.spec import BrokerSpec, PoolSpec, WorkerSpec, digest, live_digest
from fleet.errors import Refused

FACTS = Facts(
    cpus=4,
    python="/venv/bin/python",
    workdir="/srv",
    embedded_url="redis+socket:///run/broker.sock?virtual_host=0",
    embedded_command=("redis-server", "-"),
)
HEAD = """
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop.worker:app
"""


def desired(body: str, *, facts: Facts = FACTS, **overrides: Any) -> Desired:
    text = HEAD + "\n".join(f"  {line}" for line in dedent(body).strip().splitlines()) + "\n"
    if "broker:" not in text:
        text += "  broker: {url: 'redis://localhost/0'}\n"
    manifest = parse([Source("fleet.yaml", text.encode())], environ={}).manifest
    return expand(manifest, facts=facts, overrides=Overrides(**overrides))


def test_ten_solos_and_one_prefork_have_the_same_slots() -> None:
    groups = desired(
        """
        groups:
          thumbs: {pool: solo, replicas: 10}
          reports: {pool: {type: prefork, concurrency: 10}, replicas: 1}
        """
    ).groups

    assert groups["thumbs"].shape == (1,) * 10
    assert groups["reports"].shape == (10,)
    assert groups["thumbs"].slots == groups["reports"].slots == 10
    assert (groups["thumbs"].processes_per_replica, groups["reports"].processes_per_replica) == (1, 11)
    assert groups["reports"].reason == "1 replica x 10 slots, fixed in the manifest"


@pytest.mark.parametrize(
    ("said", "app", "pool"),
    [
        ("", AppFacts(), PoolSpec("prefork", 4)),
        ("pool: {concurrency: 7}, ", AppFacts(), PoolSpec("prefork", 7)),
        ("", AppFacts(pool="threads", concurrency=9), PoolSpec("threads", 9)),
        ("pool: {type: gevent}, ", AppFacts(pool="threads"), PoolSpec("gevent", 100)),
        ("pool: {type: gevent}, ", AppFacts(concurrency=30), PoolSpec("gevent", 30)),
        ("pool: solo, ", AppFacts(concurrency=30), PoolSpec("solo", 1)),
        ("", AppFacts(pool="processes"), PoolSpec("prefork", 4)),
        ("", AppFacts(pool="mine.pools:Quick"), PoolSpec("custom", 4, "mine.pools:Quick")),
        ("pool: {class: 'mine.pools:Quick'}, ", AppFacts(), PoolSpec("custom", 4, "mine.pools:Quick")),
    ],
)
def test_the_pool_is_the_manifests_else_the_apps_else_prefork(said: str, app: AppFacts, pool: PoolSpec) -> None:
    facts = replace(FACTS, apps={"shop.worker:app": app})

    assert desired(f"groups: {{g: {{{said}replicas: 1}}}}", facts=facts).groups["g"].spec.pool == pool


def test_a_custom_pool_is_named_by_the_environment_when_the_manifest_is_silent() -> None:
    facts = replace(FACTS, custom_pool="env.pools:Pool")

    assert desired("groups: {g: {pool: custom, replicas: 1}}", facts=facts).groups["g"].spec.pool.class_path == (
        "env.pools:Pool"
    )
    with pytest.raises(Refused, match="names no class"):
        desired("groups: {g: {pool: custom, replicas: 1}}")


def test_a_pool_of_the_app_that_cannot_honour_a_field_is_refused() -> None:
    facts = replace(FACTS, apps={"shop.worker:app": AppFacts(pool="threads")})

    with pytest.raises(Refused, match="threads cannot honour maxTasksPerChild"):
        desired("groups: {g: {replicas: 1, pool: {maxTasksPerChild: 5}}}", facts=facts)


def test_shares_divide_what_fixed_groups_leave() -> None:
    found = desired(
        """
        concurrency: 80
        groups:
          thumbs: {pool: solo, replicas: 10}
          reports: {pool: {type: prefork, concurrency: 10}, replicas: 1}
          mail: {pool: {type: threads, concurrency: 8}, share: {weight: 1, min: 2, max: 24}}
          webhooks: {pool: {type: gevent, concurrency: 20}, autoscale: {weight: 3, min: 1, max: 60}}
        """
    )

    assert found.groups["mail"].shape == (8, 7)
    assert found.groups["webhooks"].shape == (20, 20, 5)
    assert explain.document(found) == {
        "budget": 80,
        "allocated": 80,
        "groups": {
            "mail": {
                "slots": 15,
                "replicas": 2,
                "concurrency": 8,
                "reason": "weight 1 of 4 in the 60 slots shared by weight",
                "cpuParallelism": 2,
            },
            "reports": {
                "slots": 10,
                "replicas": 1,
                "concurrency": 10,
                "reason": "1 replica x 10 slots, fixed in the manifest",
                "cpuParallelism": 10,
            },
            "thumbs": {
                "slots": 10,
                "replicas": 10,
                "concurrency": 1,
                "reason": "10 replicas x 1 slot, fixed in the manifest",
                "cpuParallelism": 10,
            },
            "webhooks": {
                "slots": 45,
                "replicas": 3,
                "concurrency": 20,
                "reason": "weight 3 of 4 in the 60 slots shared by weight; next slot goes here;"
                " gives first if the budget shrinks",
                "cpuParallelism": 3,
            },
        },
    }
    assert explain.text(found) == (
        "GROUP     POOL     SCALING    SLOTS  SHAPE       WHY\n"
        "mail      threads  share      15     1x8 + 1x7   weight 1 of 4 in the 60 slots shared by weight\n"
        "reports   prefork  replicas   10     1x10        1 replica x 10 slots, fixed in the manifest\n"
        "thumbs    solo     replicas   10     10x1        10 replicas x 1 slot, fixed in the manifest\n"
        "webhooks  gevent   autoscale  45     2x20 + 1x5  weight 3 of 4 in the 60 slots shared by weight;"
        " next slot goes here; gives first if the budget shrinks\n"
        "\n"
        "budget 80, allocated 80, left 0\n"
    )


SHARED = """
concurrency: 20
groups:
  mail: {pool: solo, share: {weight: 1}}
  hooks: {pool: {type: gevent, concurrency: 5}, autoscale: {weight: 1, min: 0, max: 20}}
"""


def test_the_controllers_decision_moves_only_autoscaled_groups_within_bounds_and_budget() -> None:
    assert desired(SHARED).groups["hooks"].slots == 10
    assert desired(SHARED, slots={"hooks": 3}).groups["hooks"].shape == (3,)
    assert desired(SHARED, slots={"hooks": 0}).groups["hooks"].shape == ()
    assert desired(SHARED, slots={"hooks": 99}).groups["hooks"].slots == 10
    for slots in (0, 3, 99):
        assert desired(SHARED, slots={"hooks": slots}).groups["mail"].slots == 10


def test_without_dynamic_balance_decisions_do_not_count() -> None:
    assert desired("balance: {mode: static}\n" + dedent(SHARED), slots={"hooks": 3}).groups["hooks"].slots == 10


def test_a_live_scale_overrides_the_manifest_and_says_why() -> None:
    group = desired(
        "groups: {thumbs: {pool: solo, replicas: 2}}", replicas={"thumbs": 5}, reasons={"thumbs": "black friday"}
    ).groups["thumbs"]

    assert group.shape == (1,) * 5
    assert group.reason == "5 replicas x 1 slot, held by scale --live: black friday"


def test_a_paused_group_keeps_its_part_so_that_nobody_else_is_replaced() -> None:
    before, after = desired(SHARED), desired(SHARED, paused=frozenset({"mail"}))

    assert after.groups["mail"].shape == ()
    assert after.groups["mail"].paused
    assert after.groups["mail"].reason == "paused; keeps its 10 slots of the budget"
    assert after.groups["hooks"] == before.groups["hooks"]


def test_budgets_that_do_not_add_up_are_refused_with_the_sums() -> None:
    with pytest.raises(Refused, match=r"fixed groups take 12 slots of spec.concurrency 10: 2 too many \(a 8, b 4\)"):
        desired("concurrency: 10\ngroups: {a: {pool: threads, replicas: 2}, b: {pool: solo, replicas: 4}}")
    with pytest.raises(Refused, match=r"minimums need 3 slots and 2 are there: 1 short .*; 2 is spec.concurrency 10"):
        desired("concurrency: 10\ngroups: {a: {pool: threads, replicas: 2}, b: {pool: solo, share: {min: 3}}}")


def test_slots_that_fit_nobody_are_noted() -> None:
    found = desired("concurrency: 7\ngroups: {pods: {pool: {concurrency: 4}, share: {min: 0, unit: 4}}}")

    assert found.groups["pods"].slots == 4
    assert found.notes == (
        "3 slots of spec.concurrency not used: the next unit of 'pods' does not fit; 4 or 8 would leave nothing over",
    )


def test_a_command_counts_as_its_capacity_says() -> None:
    groups = desired(
        """
        groups:
          beat: {command: [celery, beat], replicas: 1, rollout: {strategy: recreate}}
          rq: {command: [rq, worker], capacity: {slots: 3, processes: 2}, replicas: 2}
        """
    ).groups

    assert (groups["beat"].slots, groups["beat"].processes_per_replica, groups["beat"].replicas) == (0, 1, 1)
    assert (groups["rq"].slots, groups["rq"].processes_per_replica, groups["rq"].replicas) == (6, 2, 2)
    assert groups["beat"].spec.command == ("celery", "beat")
    assert groups["beat"].rollout == RolloutPolicy("recreate", 0, 1)


def test_a_celery_worker_keeps_the_fields_its_command_line_is_made_of() -> None:
    spec = desired("groups: {g: {worker: celery, pool: {type: prefork, concurrency: 3}, replicas: 1}}").groups["g"].spec

    assert (spec.kind, spec.app, spec.command, spec.pool) == (
        "celery",
        "shop.worker:app",
        (),
        PoolSpec("prefork", 3),
    )


def test_the_embedded_broker_is_a_system_group_that_everyone_depends_on() -> None:
    groups = desired("broker: embedded\ngroups: {a: {replicas: 1}, b: {replicas: 1, dependsOn: [a]}}").groups

    assert groups[BROKER_GROUP].system
    assert groups[BROKER_GROUP].slots == 0
    assert groups[BROKER_GROUP].spec.command == FACTS.embedded_command
    assert groups["a"].depends_on == (BROKER_GROUP,)
    assert groups["b"].depends_on == (BROKER_GROUP, "a")
    assert groups["a"].spec.broker == BrokerSpec(url=FACTS.embedded_url)


def test_no_edit_of_the_manifest_restarts_the_embedded_broker() -> None:
    one = desired("broker: embedded\ngroups: {a: {replicas: 1}}")
    other = desired(
        """
        broker: embedded
        release: {workdir: /elsewhere, python: /other/python, revision: "2"}
        defaults: {env: {A: "1"}, drain: {timeout: 5s}, restart: {maxCrashes: 2}}
        groups: {a: {replicas: 3}, c: {replicas: 1}}
        """,
        facts=replace(FACTS, cpus=64, python="/third/python", workdir="/third"),
    )

    assert digest(one.groups[BROKER_GROUP].spec) == digest(other.groups[BROKER_GROUP].spec)


def test_release_paths_secrets_and_environment_are_in_the_digest() -> None:
    body = """
        release: {workdir: /srv/current, python: /srv/current/bin/python, revision: abc}
        secrets: {db: {file: /etc/db}, url: {file: /etc/url}}
        broker: {url: {secret: url}, visibilityTimeout: 1h}
        groups: {a: {replicas: 1, env: {B: "2", A: "1"}, secretEnv: {DB: db}}}
    """
    facts = replace(FACTS, secrets={"db": "f1", "url": "f2"}, real_paths={"/srv/current": "/srv/releases/7"})
    spec = desired(body, facts=facts).groups["a"].spec
    later = replace(facts, real_paths={"/srv/current": "/srv/releases/8"})
    rotated = replace(facts, secrets={"db": "f3", "url": "f2"})

    assert (spec.workdir, spec.python, spec.revision) == ("/srv/releases/7", "/srv/current/bin/python", "abc")
    assert spec.env == (("A", "1"), ("B", "2"))
    assert spec.secret_env == (("DB", "db", "f1"),)
    assert spec.broker == BrokerSpec("", "url", "f2", 3600.0)
    digests = {digest(desired(body, facts=one).groups["a"].spec) for one in (facts, later, rotated)}
    assert len(digests) == 3


def test_what_can_change_in_place_is_not_in_the_digest() -> None:
    def spec_of(said: str) -> WorkerSpec:
        return desired(f"groups: {{a: {{replicas: 1, {said}}}}}").groups["a"].spec

    first = spec_of("pool: {type: prefork, concurrency: 2}, queues: [x]")
    other = spec_of(
        "pool: {type: prefork, concurrency: 5}, queues: {x: {priority: 3}, y: {}}, logging: {level: DEBUG},"
        " task: {timeLimit: 5s, softTimeLimit: 4s, acks: early, prefetch: 9, maxAttempts: 2, rateLimits: {t: 10/m}},"
        " restart: {maxCrashes: 2}, health: {readyAfter: 3s}"
    )

    assert other.task.rate_limits == (("t", "10/m"),)
    assert digest(other) == digest(first)
    assert live_digest(other) != live_digest(first)
    for lasting in ("drain: {timeout: 5s}", "logging: {format: json}", "env: {A: '1'}", "app: 'other:app'"):
        assert digest(spec_of(f"pool: {{type: prefork, concurrency: 2}}, queues: [x], {lasting}")) != digest(first)


def test_rollouts_default_to_one_spare_and_a_quarter_missing() -> None:
    def rollout(said: str, replicas: int) -> RolloutPolicy:
        return desired(f"groups: {{a: {{replicas: {replicas}{said}}}}}").groups["a"].rollout

    assert rollout("", 10) == RolloutPolicy("rolling", 1, 2)
    assert rollout("", 1) == RolloutPolicy("rolling", 1, 0)
    assert rollout(", rollout: {maxSurge: 0}", 1) == RolloutPolicy("rolling", 0, 1)
    assert rollout(", rollout: {maxUnavailable: 0, onFailure: rollback}", 8) == RolloutPolicy(
        "rolling", 1, 0, "rollback"
    )


def test_a_command_never_runs_twice_unless_the_manifest_allows_it() -> None:
    groups = desired(
        """
        groups:
          beat: {command: [beat], replicas: 1}
          web: {command: [web], replicas: 8, rollout: {maxSurge: 2, maxUnavailable: 0}}
        """
    ).groups

    assert groups["beat"].rollout == RolloutPolicy("rolling", 0, 1)
    assert groups["web"].rollout == RolloutPolicy("rolling", 2, 0)


def test_drained_names_of_groups_that_are_gone_are_dropped() -> None:
    found = desired("groups: {a: {replicas: 1}}", drained=frozenset({"a.0", "a", "gone.1"}))

    assert found.drained == {"a.0", "a"}


def test_a_memory_budget_names_groups_without_a_price() -> None:
    found = desired(
        """
        budgets: {memory: 1Gi}
        groups:
          a: {pool: solo, replicas: 1}
          b: {pool: solo, replicas: 1, perReplica: {memory: 90Mi}}
          c: {pool: {type: prefork, maxMemoryPerChild: 100Mi}, replicas: 1}
        """
    )

    assert found.notes == ("the memory budget does not include 'a': no perSlot.memory or perReplica.memory",)
    assert found.groups["c"].price.memory_per_slot_bytes == 100 << 20
