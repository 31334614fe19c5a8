"""Files of several kinds to one manifest, and what was taken and left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fleet.authoring.convert import (
    celery_multi,
    celeryd_file,
    compose,
    kubernetes,
    procfile,
    supervisor,
    systemd,
)
from fleet.authoring.convert.draft import Draft, Files
from fleet.authoring.convert.settle import settle
from fleet.authoring.yaml_writer import Made, made_text
from fleet.errors import UsageError

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Input:
    """A file to convert: its name as people gave it, its text, and its folder as the manifest sees it."""

    source: str
    text: str
    folder: str = "."


@dataclass(frozen=True, slots=True)
class Imported:
    """A manifest made from something else, notes on what could not be converted, and the files by kind.

    taken: (file, kind).  left: (file, why).
    """

    manifest: str
    notes: tuple[str, ...]
    taken: tuple[tuple[str, str], ...] = ()
    left: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind:
    read: Callable[[str, Draft], None]
    is_kind: Callable[[str], bool]
    expected: str
    names: tuple[str, ...] = field(default=())


_KINDS: dict[str, _Kind] = {
    module.KIND: _Kind(module.read, module.is_kind, module.EXPECTED)
    for module in (systemd, supervisor, compose, kubernetes, celeryd_file, celery_multi, procfile)
}
KINDS = tuple(sorted(_KINDS))


def kind_of(text: str, *, source: str = "") -> str:
    """The kind of a file by its text, or empty. Many a YAML file reads like a Procfile: there its name decides."""
    found = next((name for name, kind in _KINDS.items() if _is(kind, text)), "")
    is_other = found == procfile.KIND and source and "procfile" not in source.rpartition("/")[2].lower()
    return "" if is_other else found


def _is(kind: _Kind, text: str) -> bool:
    try:
        return kind.is_kind(text)
    except ValueError:  # a quote without an end
        return False


def import_files(
    kind: str,
    inputs: Sequence[Input],
    *,
    name: str,
    files: Files | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Imported:
    """The manifest that does the same as the files together.

    kind: one of KINDS, or ``auto``. Raises UsageError for a file that is not of the kind, and where nothing runs.
    on_progress: hears how many files were read, and how many there are.
    """
    if kind not in {AUTO, *_KINDS}:
        raise UsageError(f"cannot import from {kind!r}", hint=f"known: {AUTO}, {', '.join(KINDS)}")
    draft = Draft(files or Files())
    taken: list[tuple[str, str]] = []
    left: list[tuple[str, str]] = []
    ordered = _in_order(kind, inputs, left)
    for number, (found, each) in enumerate(ordered):
        if on_progress is not None:
            on_progress(number, len(ordered))
        if each.text in draft.read_on_the_way:
            taken.append((each.source, f"{found}, with the file that names it"))
            continue
        text = each.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("${env:", "$${env:")
        _refuse_other(found, text, each.source)
        draft.folder = each.folder
        _read(found, text, draft, each.source)
        taken.append((each.source, found))
    if not draft.groups:
        raise _nothing(kind, inputs, draft)
    settled = settle(draft)
    made = Made(
        name=name,
        sources=tuple(source for source, _ in taken),
        notes=tuple(draft.notes),
        release=settled.release,
        broker_url=settled.broker_url,
        secrets=settled.secrets,
        concurrency=settled.concurrency,
        groups=settled.groups,
    )
    return Imported(made_text(made), tuple(draft.notes), tuple(taken), tuple(left))


def _in_order(kind: str, inputs: Sequence[Input], left: list[tuple[str, str]]) -> list[tuple[str, Input]]:
    """(kind, file), first those that name other files."""
    found: list[tuple[str, Input]] = []
    for each in inputs:
        here = kind_of(each.text, source=each.source) if kind == AUTO else kind
        if kind == "celery-multi" and _is(_KINDS["celeryd"], each.text):
            here = "celeryd"
        if here:
            found.append((here, each))
        else:
            left.append((each.source, "of no known kind"))
    return sorted(found, key=lambda pair: (list(_KINDS).index(pair[0]), "[include]" not in pair[1].text))


def _nothing(kind: str, inputs: Sequence[Input], draft: Draft) -> UsageError:
    where = ", ".join(each.source for each in inputs) or "the folder"
    hint = _KINDS[kind].expected if kind in _KINDS else f"known kinds: {', '.join(KINDS)}"
    notes = "".join(f"\n  {note}" for note in draft.notes)
    return UsageError(f"{where}: nothing to run was found{notes}", hint=hint)


def _refuse_other(kind: str, text: str, source: str) -> None:
    """A text that is plainly of a different kind is refused, with the right word."""
    if (other := kind_of(text)) not in {"", kind}:
        raise UsageError(f"{source}: not a file for {kind}", hint=f"this is {other}: --from {other}, or --from {AUTO}")


def _read(kind: str, text: str, draft: Draft, source: str) -> None:
    draft.source = source
    try:
        _KINDS[kind].read(text, draft)
    except ValueError as error:  # a quote without an end, in any of the formats
        raise UsageError(f"{source}: {error}", hint="check the quotes") from error


def import_from(kind: str, text: str, *, name: str, source: str = "") -> Imported:
    """The manifest that does the same as one text."""
    return import_files(kind, [Input(source or kind, text)], name=name)
