"""From a word of the command line to a source that can be followed: a file, or the name of one that was followed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fleet import settings
from fleet.core.manifest.tree import Source
from fleet.errors import UsageError
from fleet.file_access import faults_above, faults_within, refuse
from fleet.operate.sync import overview
from fleet.operate.sync.definition import Definition
from fleet.operate.sync.following import Following
from fleet.operate.sync.forges import Forge, forge
from fleet.operate.sync.receiver import Receiver
from fleet.operate.sync.reconcile import LocalTarget, environment
from fleet.operate.sync.service import Service
from fleet.operate.sync.source import parse, remote_of
from fleet.operate.sync.state import SourcePlaces, definition_of
from fleet.operate.sync.telling import Telling
from fleet.operate.sync.watcher import NOBODY, Watcher
from fleet.state.files import read_named

SUFFIXES = (".yaml", ".yml", ".json")


def opened(word: str) -> tuple[Definition, SourcePlaces]:
    """The source that a word names. Raises UsageError or ManifestError."""
    home = settings.load().home
    if is_file(word):
        file = Path(word)
        definition = read(file)
        places = SourcePlaces.of(home, definition.source.name)
        _refuse_untrusted(places)
        return definition, places
    places = SourcePlaces.of(home, word)
    _refuse_untrusted(places)
    file = definition_of(places)
    definition = read(file)
    if definition.source.name != word:
        raise UsageError(f"{file} is of the source {definition.source.name!r} now", hint=f"fleet sync run {file}")
    return definition, places


def _refuse_untrusted(places: SourcePlaces) -> None:
    """Raise Refused where another account could change what is kept of the source."""
    refuse([*faults_above(places.root.parent), *faults_within(places.root, ())])


def is_file(word: str) -> bool:
    """Whether a word names a file, by its looks."""
    return word.endswith(SUFFIXES) or "/" in word


def read(file: Path) -> Definition:
    """The source in a file."""
    source = parse(Source(str(file), read_named(str(file))), environ=environment())
    return Definition(source, file.absolute().parent)


def service(
    definition: Definition,
    places: SourcePlaces,
    *,
    say: Callable[[str], None],
    adopt: bool = False,
    target: LocalTarget | None = None,
    now: Callable[[], float] = time.time,
    watcher: Watcher = NOBODY,
) -> Service:
    """Everything that follows a source, put together."""
    target = target or LocalTarget()
    following = Following(definition, places, target=target, now=now, adopt=adopt, watcher=watcher)
    return Service(following, _telling(definition, places, now), receiver=_receiver(definition), say=say)


def _telling(definition: Definition, places: SourcePlaces, now: Callable[[], float]) -> Telling:
    source, commit = definition.source, definition.source.spec.status.commit
    file = source.spec.status.file

    def door() -> Forge:
        assert commit is not None
        project = commit.project or remote_of(source.spec.git).project
        token = definition.secret(commit.token.secret)
        return forge(commit.provider, project, token, name=source.name, api=commit.api or "")

    return Telling(
        source.name,
        places,
        forge=door if commit is not None else None,
        comments=commit is not None and commit.comments,
        file=str(definition.folder / file) if file else "",
        document=lambda: overview.document(source, places, now=now()),
    )


def _receiver(definition: Definition) -> Callable[[Callable[[], None]], Receiver] | None:
    asked = definition.source.spec.receiver
    if asked is None:
        return None
    secret = definition.secret(asked.hmac_secret.secret)
    return lambda look_now: Receiver(asked.listen, secret, look_now)
