"""The interface to what runs replicas. A backend executes and reports; it decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleet.core.desired import Desired, Replica
from fleet.core.observed import Observed


class Backend(Protocol):
    """One fleet in one place.

    Every call is idempotent: doing it twice ends where doing it once ends. Calls return as soon as the request is
    placed; a caller that wants the effect observes until it is there. Calls raise ``Unreachable`` when the daemon does
    not answer and ``FleetError`` when it refuses.
    """

    def observe(self, *, shares: bool = False, usage: bool = True) -> Observed:
        """One snapshot, one moment. A daemon that does not run is ``Observed(up=False)``, strays included.

        shares: memory that processes share is divided among them, where that can be seen; it takes longer.
        usage: memory and processor time of each replica; without them (0) whoever looks often pays much less.
        """
        ...

    def renew_records(self) -> bool:
        """Put right what it keeps of the state of programs that say nothing of themselves, where the last observation
        found that damaged; whether it was. The next observation sees it."""
        ...

    def prepare(self, desired: Desired) -> None:
        """Make the daemon run, owning nothing new, with room (descriptors) for ``desired``."""
        ...

    def preload(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Begin what the start of these replicas takes long for and what depends on no other; do not wait for it.

        It saves time and decides nothing: what fails here shows when they start.
        """
        ...

    def start(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Write the files of these replicas and run them. ``secrets``: secret name -> value.

        Replicas that run already with the same digest are left alone; stopped ones run with these settings. Raises
        FleetError when the daemon sees any other change in its files than these, and takes its own back first.
        """
        ...

    def resize(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Give replicas of the same digest changed slots and settings; running workers apply them by themselves.

        Only a launch document that was lost needs ``secrets`` again. Raises FleetError for one of a different digest.
        """
        ...

    def stop(self, names: Sequence[str]) -> None:
        """Ask these replicas to drain and exit, all at once. The backend kills what runs after its drain timeout."""
        ...

    def run_again(self, names: Sequence[str]) -> None:
        """Run stopped replicas again as they are."""
        ...

    def forget(self, names: Sequence[str]) -> None:
        """Remove replicas that do not run from the backend, with their files."""
        ...

    def hold(self, names: Sequence[str], *, on: bool) -> None:
        """Tell replicas to stop taking tasks (on) or to take them again (off); they keep running."""
        ...

    def reap(self, pids: Sequence[int]) -> None:
        """Ask stray processes to drain and exit."""
        ...

    def shutdown(self) -> None:
        """End the daemon itself. Only for an empty fleet: call it when nothing runs any more."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
