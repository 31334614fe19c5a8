"""What Celery's own worker cannot do in a fleet in some of its versions: the one table. PURE.

The rows were found by running the contract of workers over the oldest, the newest and each version between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Version = tuple[int, int]
OLDEST: Version = (5, 3)


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that versions before ``until`` lack.

    pools: only in these; none: in all of them.  is_in_manifest: a manifest shows whether it matters.
    """

    until: Version
    what: str
    pools: frozenset[str] = frozenset()
    is_in_manifest: bool = True

    def concerns(self, version: Version, pool: str) -> bool:
        """Whether a worker of this version with this pool lacks it."""
        return version < self.until and (not self.pools or pool in self.pools)


LACKS = (
    Lack(OLDEST, "fleet's module in Celery's worker was not tried with it"),
    Lack((5, 5), "`celery control terminate` and `revoke --terminate` end no task of gevent", frozenset({"gevent"})),
    Lack((5, 5), "on RabbitMQ it cannot consume quorum queues", is_in_manifest=False),
)


def lacks_of(version: Version, pool: str) -> Iterable[str]:
    """Of a group with this version and pool, in words, as far as its manifest shows it."""
    return [lack.what for lack in LACKS if lack.is_in_manifest and lack.concerns(version, pool)]


def shown(version: Version) -> str:
    """As people write it."""
    return ".".join(map(str, version))


def version_in(text: str) -> Version | None:
    """From ``5.3.6``, or from the name of a package's folder, ``celery-5.3.6.dist-info``; None where there is none."""
    numbers = text.removeprefix("celery-").split(".")
    if len(numbers) < 2 or not (numbers[0].isdecimal() and numbers[1].isdecimal()):
        return None
    return int(numbers[0]), int(numbers[1])
