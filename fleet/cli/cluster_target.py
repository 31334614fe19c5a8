"""Which fleet in which cluster a command line means; context and namespace are always said, never guessed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.cli.target import CLUSTER, Target, said_target
from fleet.errors import UsageError

if TYPE_CHECKING:
    from fleet.inputs.manifest import LoadedManifest
    from fleet.operate.cluster.cluster_fleet import ClusterFleet

HOST = "supervisor"


def place_flags(parser: argparse.ArgumentParser) -> None:
    """--target, --context and --namespace."""
    where = "where the fleet lives (default: as spec.target says, else this host)"
    parser.add_argument("--target", choices=(HOST, CLUSTER), default=None, help=where)
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig (default: spec.kubernetes.context)")
    parser.add_argument("--namespace", metavar="NAME", help="in the cluster (default: spec.kubernetes.namespace)")


def ownership_flag(parser: argparse.ArgumentParser) -> None:
    """--force-ownership, for verbs that write objects."""
    parser.add_argument(
        "--force-ownership", action="store_true", help="in a cluster: also take objects and fields that are another's"
    )


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """The fleet that is meant, with its manifest where one was named."""

    fleet: ClusterFleet
    loaded: LoadedManifest | None

    def manifest(self) -> LoadedManifest:
        """The manifest that was named, else the one that was applied last. Raises UsageError where there is neither."""
        from fleet.inputs.manifest import from_revision

        if self.loaded is not None:
            return self.loaded
        latest = self.fleet.history.latest()
        if latest is None:
            hint = "name a manifest, or look at --context and --namespace"
            raise UsageError(f"fleet {self.fleet.name!r} was never applied in {self.fleet.place}", hint=hint)
        return from_revision(latest)


def in_cluster(args: argparse.Namespace, target: Target) -> ClusterTarget | None:
    """The fleet in a cluster that is meant; None where it is one on this host. Raises UsageError."""
    sources = target.sources()
    said = said_target(sources)
    if args.target == HOST and said == CLUSTER:
        hint = "for one on this host, add an overlay with `spec: {target: supervisor}`"
        raise UsageError("the manifest says `target: kubernetes`", hint=hint)
    if (args.target or said) != CLUSTER:
        if args.context or args.namespace:
            raise UsageError("--context and --namespace are for a fleet in a cluster", hint="add --target kubernetes")
        return None
    return _in_cluster(args, target, sources)


def _in_cluster(args: argparse.Namespace, target: Target, sources: Sequence[str]) -> ClusterTarget:
    from fleet import settings
    from fleet.backends.kubernetes.client import Place
    from fleet.inputs.manifest import from_files
    from fleet.operate.cluster.cluster_fleet import ClusterFleet

    loaded = from_files(sources) if sources else None
    name = loaded.name if loaded is not None else target.fleet
    if not name:
        raise UsageError("which fleet? Name a manifest, or use --fleet NAME")
    cluster = loaded.manifest.spec.kubernetes if loaded is not None else None
    context = args.context or (cluster.context if cluster is not None else None)
    namespace = args.namespace or (cluster.namespace if cluster is not None else None)
    for flag, value in (("context", context), ("namespace", namespace)):
        if not value:
            hint = f"say --{flag} NAME, or write spec.kubernetes.{flag}; the kubeconfig's current one is never taken"
            raise UsageError(f"which {flag} of the cluster?", hint=hint)
    place = Place(str(context), str(namespace))
    return ClusterTarget(ClusterFleet(name, place, timeout_seconds=settings.load().rpc_timeout_seconds), loaded)
