"""Looks at pods and queues, decides as on a host, and says how many slots each group is to have.

It starts and stops nothing: KEDA asks for the numbers. When pods are to go it marks which, and holds those, so that
they finish what they run and take nothing more before they are told to stop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.backends.kubernetes.client import Cluster
from fleet.backends.kubernetes.kinds import POD, Object, label_of, name_of
from fleet.backends.kubernetes.names import DELETION_COST, DIGEST, selector_of
from fleet.backends.kubernetes.pod_observed import GROUP, is_present, observed_pods, state_of
from fleet.core.autoscale.decide import EMPTY, Decision, Memory, affordable, decide
from fleet.core.autoscale.groups import ScaledGroups
from fleet.core.autoscale.measure import Measured, measure
from fleet.core.autoscale.sample import Backlog, Meter, Sample
from fleet.core.desired import Desired
from fleet.core.observed import State
from fleet.errors import FleetError
from fleet.operate.scaler.orders import Order, PodLoad, as_ordered, changed, costs, ordered, reachable, victims
from fleet.replica.pod_report import PodReport

MANAGER = "fleet-scaler"
_HOLD = ("python3", "-P", "-m", "fleet.replica.hold")
_ANSWER_SECONDS = 4.0
"""For one pod to be held: a pod that does not answer must not cost the lead."""
_AT_ONCE = 16

AskPod = Callable[[Object], PodReport | None]
"""What a pod tells of its worker; None where it gives no answer."""
ReadBacklog = Callable[[Sequence[str]], Backlog]
"""What waits in the queues of these groups."""


@dataclass(frozen=True, slots=True)
class ScalerLook:
    """One look. ``orders``: group -> slots that KEDA is told.  note: what could not be seen or done, for people."""

    at: float
    tick_seconds: float
    budget: int
    decision: Decision
    samples: Mapping[str, Sample]
    orders: Mapping[str, int]
    going: Mapping[str, Sequence[str]] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """For people and for logs."""
        groups = {}
        for name, slots in sorted(self.orders.items()):
            verdict, sample = self.decision.verdicts[name], self.samples[name]
            groups[name] = {
                "has": sample.has,
                "draining": sample.draining,
                "queue": sample.queue,
                "busy": sample.busy,
                "gets": verdict.gets,
                "ordered": slots,
                "why": verdict.reason,
                "going": list(self.going.get(name, ())),
            }
        return {"at": round(self.at, 3), "budget": self.budget, "groups": groups, "note": self.note}


class Scaler:
    """The decision over time. What it remembers may be lost: then no group shrinks for a minute."""

    def __init__(
        self,
        desired: Desired,
        found: ScaledGroups,
        cluster: Cluster,
        *,
        read_backlog: ReadBacklog,
        ask_pod: AskPod,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._desired = desired
        self._found = found
        self._cluster = cluster
        self._read_backlog = read_backlog
        self._ask_pod = ask_pod
        self._now = now
        self._memory: Memory = EMPTY
        self._meters: Mapping[str, Meter] = {}
        self._orders: dict[str, Order] = {}

    @property
    def tick_seconds(self) -> float:
        """Time between two looks."""
        return self._found.parameters.tick_seconds

    def forget(self) -> None:
        """Begin anew: another process has decided meanwhile."""
        self._memory, self._meters, self._orders = EMPTY, {}, {}

    def tick(self) -> ScalerLook:
        """Look, decide, and mark the pods that are to go. Raises FleetError where the cluster gives no answer."""
        now = self._now()
        pods = self._cluster.objects(POD, selector_of(self._desired.fleet))
        reports = self._asked(pods)
        names = [group.name for group in self._found.groups]
        backlog = self._read_backlog(names)
        observed = observed_pods(self._desired, pods, reports)
        seen = measure(names, self._desired, observed, backlog, meters=self._meters, now=now)
        look = self._decided(seen, now)
        going, problem = self._marked(look, pods, reports)
        self._orders = {
            name: ordered(slots, there=seen[name].sample.has, before=self._orders.get(name), now=now)
            for name, slots in look.orders.items()
        }
        note = "; ".join(one for one in (backlog.problem, problem) if one)
        return replace(look, going=going, note=note)

    def _asked(self, pods: Sequence[Object]) -> dict[str, PodReport]:
        """Pod -> its report, of those that answer."""
        own = [pod for pod in pods if label_of(pod, GROUP) in self._desired.groups]
        if not own:
            return {}
        with ThreadPoolExecutor(min(_AT_ONCE, len(own))) as threads:
            found = zip(own, threads.map(self._ask_pod, own), strict=True)
            return {name_of(pod): report for pod, report in found if report is not None}

    def _decided(self, seen: Mapping[str, Measured], now: float) -> ScalerLook:
        found = self._found
        samples = {name: as_ordered(one.sample, self._orders.get(name), now=now) for name, one in seen.items()}
        decision = decide(
            self._memory,
            samples,
            found.groups,
            budget=found.budget,
            now=now,
            parameters=found.parameters,
            capacity=found.capacity,
        )
        asked = affordable(decision, samples, found.groups, budget=found.budget)
        self._memory = decision.memory
        self._meters = {name: one.meter for name, one in seen.items()}
        present = {name: one.sample.has for name, one in seen.items()}
        orders = self._heard(decision, asked, present)
        return ScalerLook(now, self.tick_seconds, found.budget, decision, samples, orders)

    def _heard(self, decision: Decision, asked: Mapping[str, int], present: Mapping[str, int]) -> dict[str, int]:
        """Orders in whole pods that the cluster takes notice of."""
        waits = {name for name, slots in decision.slots.items() if asked[name] < slots}
        orders = {}
        for group in self._found.groups:
            name, unit = group.name, group.share.unit
            pods = reachable(
                present[name] // unit,
                asked[name] // unit,
                least=group.floor // unit,
                is_wanted_elsewhere=bool(waits - {name}),
            )
            orders[name] = pods * unit
        return orders

    # --- which pods go

    def _marked(
        self, look: ScalerLook, pods: Sequence[Object], reports: Mapping[str, PodReport]
    ) -> tuple[dict[str, list[str]], str]:
        """Write what pods cost where some are to go, and hold those; release what is to stay. Group -> pods that go."""
        going: dict[str, list[str]] = {}
        problems: list[str] = []
        for group in self._found.groups:
            own = [pod for pod in pods if label_of(pod, GROUP) == group.name and is_present(pod)]
            loads = [_load(pod, reports.get(name_of(pod))) for pod in own]
            rolls = len({digest_of(pod) for pod in own}) > 1  # the rollout itself says which ones go
            leave = [] if rolls else victims(loads, look.orders[group.name] // group.share.unit)
            if leave:
                going[group.name] = leave
            problems += self._written(own, costs(loads, leave))
        return going, "; ".join(dict.fromkeys(problems))

    def _written(self, pods: Sequence[Object], wanted: Mapping[str, int]) -> list[str]:
        """Bring the marks of a group's pods to what is wanted; what could not be done, in words."""
        written = {name_of(pod): cost for pod in pods if (cost := cost_of(pod)) is not None}
        problems = []
        for pod, cost in sorted(changed(wanted, written).items()):
            problems += self._mark(pod, cost, was_going=written.get(pod, 0) < 0)
        for pod in sorted(written.keys() - wanted.keys()):
            problems += self._mark(pod, None, was_going=written[pod] < 0)
        return problems

    def _mark(self, pod: str, cost: int | None, *, was_going: bool) -> list[str]:
        goes = cost is not None and cost < 0
        patch = {"metadata": {"annotations": {DELETION_COST: None if cost is None else str(cost)}}}
        try:
            if was_going and not goes:
                self._cluster.run(pod, (*_HOLD, "off"), timeout_seconds=_ANSWER_SECONDS)
            self._cluster.merge(POD, pod, patch, manager=MANAGER)
            if goes and not was_going:
                self._cluster.run(pod, (*_HOLD, "on"), timeout_seconds=_ANSWER_SECONDS)
        except FleetError as error:
            return [f"pod {pod}: {error.message}"]
        return []


def digest_of(pod: Object) -> str:
    """Of what its worker must be; those of one rollout have the same."""
    return str((pod["metadata"].get("annotations") or {}).get(DIGEST) or "")


def cost_of(pod: Object) -> int | None:
    """What is written on a pod; None where nothing is, or no number."""
    said = str((pod["metadata"].get("annotations") or {}).get(DELETION_COST) or "")
    return int(said) if said.removeprefix("-").isdigit() else None


def _load(pod: Object, report: PodReport | None) -> PodLoad:
    is_ready = state_of(pod, report) is State.READY
    began = str(pod["metadata"].get("creationTimestamp") or "")
    return PodLoad(name_of(pod), is_ready, report.busy if report is not None else 0, began)
