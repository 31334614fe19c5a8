"""Checks of the embedded broker."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.broker import embedded, server_version
from fleet.broker.backlog.sampler import Sampler
from fleet.core.desired import BROKER_GROUP, broker_of, split_name
from fleet.core.text.mask import masked
from fleet.errors import Damaged, FleetError
from fleet.inputs.facts import secret_values
from fleet.inputs.manifest import from_revision
from fleet.operate.doctor.finding import Examined, Finding
from fleet.settings import Settings
from fleet.state import applied
from fleet.state.paths import Places
from fleet.state.revisions import History


def broker_findings(examined: Examined) -> Iterator[Finding]:
    has = any(split_name(name)[0] == BROKER_GROUP for name in examined.folder.documents())
    yield from broker_server_findings(examined.settings, wanted=examined.embedded_wanted or has)
    if not has or examined.observed is None or not examined.observed.up:
        return
    listens_on = embedded.socket_in_use(examined.places)
    if embedded.ping(embedded.url_in_use(examined.places)):
        yield Finding("info", "broker", f"answers on {listens_on}")
    else:
        hint = f"`fleet logs {BROKER_GROUP}` says why"
        yield Finding("error", "broker", f"the embedded broker does not answer on {listens_on}", hint)


def outside_broker_findings(examined: Examined) -> Iterator[Finding]:
    """Whether the broker of the applied manifest answers; not asked where it is embedded or no group takes from it."""
    try:
        word = applied.load(examined.places.applied)
        broker = broker_of(word.desired) if word is not None and not word.down else None
        if broker is None or examined.embedded_wanted or word is None:
            return
        queues = sorted({queue.name for group in word.desired.groups.values() for queue in group.spec.queues})
        if not queues:
            return
        url = broker.url or _secret_url(examined.places, word.revision, broker.secret)
    except FleetError as error:
        if not isinstance(error, Damaged):
            yield Finding("warning", "broker", f"cannot be asked: {error.message}", error.hint)
        return
    sampler = Sampler(url, fleet=word.desired.fleet)
    try:
        problem = sampler.sample(queues[:1]).problem
    finally:
        sampler.close()
    if problem:
        yield Finding("error", "broker", problem, "workers wait for it and go on by themselves once it answers")
    else:
        yield Finding("info", "broker", f"answers: {masked(url)}")


def _secret_url(places: Places, number: int, secret: str) -> str:
    loaded = from_revision(History(places.revisions).get(number))
    return secret_values(loaded, given={})[secret]


def broker_server_findings(settings: Settings, *, wanted: bool) -> Iterator[Finding]:
    try:
        server = embedded.find_server(settings.redis_server)
        yield Finding("info", "broker", f"`broker: embedded` would run {server}")
        server_version.check_server(server)
        if known := server_version.warning(server):
            yield Finding("warning" if wanted else "info", "broker", known, server_version.HINT)
    except FleetError as error:
        yield Finding("error" if wanted else "info", "broker", error.message, error.hint)
