"""What the edges found out before planning, handed to the pure core as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec


@dataclass(frozen=True, slots=True)
class AppFacts:
    """What an app says about itself where the manifest is silent.

    pool, concurrency: ``worker_pool`` and ``worker_concurrency``.  queues: those of a worker that is told of none.
    """

    pool: str | None = None
    concurrency: int | None = None
    queues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of this machine and moment that a spec depends on.

    cpus: cores this machine lends to workers; the default concurrency of prefork, threads and processes.
    own_python, own_version: fleet's own interpreter and version.  python: the one for groups whose release names none.
    workdir: likewise, the folder of the first manifest.
    real_paths: path as written -> path with symlinks resolved.  apps: ``module:attr`` -> what the app says.
    secrets: secret name -> keyed fingerprint (never the value).
    code: what lies in the working folder, where the manifest watches it.
    commit: of the git checkout that the working folder lies in, empty for none.
    embedded_url: the broker URL of ``broker: embedded`` for this fleet.
    accounts: group -> the account of its replicas, where it is not fleet's own.  broker_account: likewise, of the
    embedded broker.
    first_index: lowest index of a replica; of those in a pod a number that no other pod has.
    """

    cpus: int = 1
    python: str = "python3"
    own_python: str = "python3"
    own_version: str = ""
    workdir: str = "/"
    embedded_url: str = ""
    embedded_command: tuple[str, ...] = ()
    custom_pool: str | None = None
    real_paths: Mapping[str, str] = field(default_factory=dict)
    apps: Mapping[str, AppFacts] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    code: str = ""
    accounts: Mapping[str, AccountSpec] = field(default_factory=dict)
    broker_account: AccountSpec = FLEETS_ACCOUNT
    first_index: int = 0


@dataclass(frozen=True, slots=True)
class MovedPart:
    """What a group has while it moves between this host and a cluster, or lives there.

    here: slots of its replicas on this host.  there: slots of the budget that are the cluster's.  why: for people.
    """

    here: int
    there: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Overrides:
    """Live exceptions to the manifest, kept in ``state/overrides.yaml`` until they end or an apply drops them.

    replicas: group -> count (``scale --live``).  paused: groups held at zero.  drained: replicas that take no work.
    slots: group -> slots (the controller's decision, within an autoscaled group's bounds); slot_reasons: why.
    moved: groups that `fleet migrate` moved; these win over everything else that is said of a group.
    """

    replicas: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, int] = field(default_factory=dict)
    slot_reasons: Mapping[str, str] = field(default_factory=dict)
    paused: frozenset[str] = frozenset()
    drained: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    moved: Mapping[str, MovedPart] = field(default_factory=dict)


NO_OVERRIDES = Overrides()
