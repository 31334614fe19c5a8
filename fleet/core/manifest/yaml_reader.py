"""YAML text to a tree that remembers where every value stands.

Only the part of YAML that means the same to everyone is taken: maps with text keys, lists, text, whole and decimal
numbers, true and false, null; and the merge key (``<<``) of YAML 1.1, because many files have it. Words that YAML 1.1
and 1.2 read differently, tags and duplicate keys are refused with their position. The events of libyaml are read one by
one, so a hostile file (deep nesting, alias bombs) meets a limit before it meets our memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import yaml

from fleet.core.manifest.tree import Findings, Node, Path, Position, Source
from fleet.core.manifest.yaml_scalars import resolve
from fleet.core.text.format import shown

MAX_BYTES = 1 << 20
MAX_ALIASES = 1000
MAX_DEPTH = 40
MERGE_KEY = "<<"
MAX_NODES = 50_000


def load(source: Source, findings: Findings) -> Node | None:
    """The tree of one file, or None when it cannot be read at all; then ``findings`` says why."""
    before = len(findings.problems)
    text = decode(source, findings)
    if text is None:
        return None
    builder = _Builder(source.name, findings)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as error:
        _syntax_problem(source.name, text, error, findings)
        return None
    except _GivenUp:
        return None
    if builder.root is None and len(findings.problems) == before:
        findings.add(Position(source.name, 1, 1), (), "the file is empty", "`fleet init` writes one to start from")
    return builder.root


def decode(source: Source, findings: Findings) -> str | None:
    """The text of a file, or None when it is too large, not UTF-8 or holds what no manifest holds."""
    data = source.text.encode("utf-8", "surrogatepass") if isinstance(source.text, str) else source.text
    if len(data) > MAX_BYTES:
        size = f"{len(data):,} bytes, and a manifest may have {MAX_BYTES:,}"
        findings.add(Position(source.name, 1, 1), (), f"the file is too large: {size}", _RIGHT_FILE)
        return None
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        place = _position(source.name, data[: error.start].decode("utf-8", "replace"))
        findings.add(place, (), f"not UTF-8 text (byte 0x{data[error.start]:02x})", "save the file as UTF-8")
        return None
    if not text.replace("\n", "").isprintable() and (bad := re.search(_FORBIDDEN, text)):
        place = _position(source.name, text[: bad.start()])
        what = f"a character that no manifest holds: U+{ord(bad.group()):04X}"
        findings.add(place, (), what, 'remove it; in a value write it as an escape in double quotes: "\\e", "\\x07"')
        return None
    return text


def _position(source: str, before: str) -> Position:
    lines = re.split(r"\r\n|\r|\n", before)
    return Position(source, len(lines), len(lines[-1]) + 1)


_ENCODE_IT = "no variable, argument or path can hold it; encode it, for instance as base64"
_RIGHT_FILE = "is this the right file?"

# Control characters, lone surrogates, non-characters, marks that make text read other than it is stored, and line
# breaks that only YAML 1.1 knows. Slow to compile, so only text that Python does not call printable is searched.
_FORBIDDEN = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
_UNUSABLE = "[\x00\ud800-\udfff]"


def _unusable(text: str) -> re.Match[str] | None:
    return None if text.isprintable() else re.search(_UNUSABLE, text)


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _GivenUp(Exception):
    """The file broke a limit; the rest of it is not worth reading."""


@dataclass(slots=True)
class _Frame:
    """A collection that is being read."""

    node: Node
    anchor: str | None = None
    key: str | None = None
    key_at: Position | None = None
    key_start: int = 0
    key_broken: bool = False
    key_merges: bool = False
    awaits_key: bool = True
    merges: Node | None = None
    first_key: int | None = None


class _Builder:
    """Takes parser events and grows the tree, noting problems as it goes."""

    def __init__(self, source: str, findings: Findings) -> None:
        self.source = source
        self.findings = findings
        self.root: Node | None = None
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._starts: list[int] = []
        self._aliases = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        """One event of the parser."""
        match event:
            case yaml.DocumentStartEvent():
                self._document(event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)

    # positions

    def _at(self, event: Any) -> Position:
        return Position(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _path(self, last: str | int | None = None) -> Path:
        parts: list[str | int] = []
        for frame in self._frames:
            if isinstance(frame.node.value, list):
                parts.append(len(frame.node.value))
            elif frame.key is not None:
                parts.append(frame.key)
        return (*parts, last) if last is not None else tuple(parts)

    def _key_at(self) -> Position | None:
        return self._frames[-1].key_at if self._frames and isinstance(self._frames[-1].node.value, dict) else None

    def _wants_key(self) -> bool:
        return bool(self._frames) and isinstance(self._frames[-1].node.value, dict) and self._frames[-1].awaits_key

    # events

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            hint = "keep one manifest per file; several files are merged left to right"
            self.findings.add(self._at(event), (), "a second document starts here", hint)
            raise _GivenUp

    def _scalar(self, event: Any) -> None:
        self._count(event)
        self._refuse_tag(event)
        if self._wants_key():
            self._key(event)
            return
        span = (event.start_mark.index, event.end_mark.index)
        value, trap, hint = (event.value, "", "") if event.style else resolve(event.value)
        if not trap and isinstance(value, str) and (bad := _unusable(value)):
            trap, hint = f"the text holds a character that cannot be used: U+{ord(bad.group()):04X}", _ENCODE_IT
        if trap:
            self.findings.add(self._key_at() or self._at(event), self._path(), trap, hint)
        self._add(Node(value, self._at(event), span=span, broken=bool(trap)), event.anchor, 1)

    def _key(self, event: Any) -> None:
        frame = self._frames[-1]
        value, trap, hint = (event.value, "", "") if event.style else resolve(event.value)
        key = event.value
        if key == "on":  # the field of a notification; a key is text here, whatever it would be as a value
            trap, hint = "", ""
        merges = not event.style and key == MERGE_KEY
        if not trap and not isinstance(value, str):
            trap, hint = f"a key must be text, not {shown(value)}", f'write "{key}" in quotes'
        elif not trap and (bad := _unusable(key)):
            trap, hint = f"the key holds a character that cannot be used: U+{ord(bad.group()):04X}", _ENCODE_IT
        if trap:
            self.findings.add(self._at(event), self._path(), trap, hint)
        elif first := self._first_of(frame, key, merges=merges):
            self.findings.add(
                self._at(event),
                self._path(key),
                f"the key {shown(key)} is here twice",
                f"the first is at line {first.line}; remove one",
            )
            trap = "twice"
        frame.key, frame.key_at, frame.key_broken, frame.awaits_key = key, self._at(event), bool(trap), False
        frame.key_start, frame.key_merges = event.start_mark.index, merges
        frame.first_key = frame.key_start if frame.first_key is None else frame.first_key

    def _first_of(self, frame: _Frame, key: str, *, merges: bool) -> Position | None:
        """Where the same key stood before in this map."""
        if merges:
            return frame.merges.place if frame.merges else None
        before = frame.node.fields().get(key)
        return before.place if before else None

    def _alias(self, event: Any) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            message = f"more than {MAX_ALIASES} aliases"
            self.findings.add(self._at(event), self._path(), message, "put what groups share under spec.defaults")
            raise _GivenUp
        if self._wants_key():
            self.findings.add(self._at(event), self._path(), "an alias cannot be a key", "write the key out")
            frame = self._frames[-1]
            frame.key, frame.key_at, frame.key_broken, frame.awaits_key = "", self._at(event), True, False
            frame.key_merges = False
            return
        if event.anchor not in self._anchors:
            hint = "an anchor (&name) must be complete before its alias (*name)"
            self.findings.add(self._at(event), self._path(), f"unknown or circular alias *{event.anchor}", hint)
            raise _GivenUp
        target, size = self._anchors[event.anchor]
        self._nodes += size
        self._count(event)
        span = (event.start_mark.index, event.end_mark.index)
        self._add(replace(target, at=self._at(event), span=span), None, size)

    def _open(self, event: Any) -> None:
        self._count(event)
        self._refuse_tag(event)
        if len(self._frames) >= MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            self.findings.add(self._at(event), (), message, _RIGHT_FILE)
            raise _GivenUp
        if self._wants_key():
            self.findings.add(
                self._at(event), self._path(), "a key must be text, not a map or a list", "write `key: value`"
            )
            raise _GivenUp
        value: dict[str, Node] | list[Node] = {} if isinstance(event, yaml.MappingStartEvent) else []
        node = Node(value, self._at(event), span=(event.start_mark.index, 0), flow=bool(event.flow_style))
        self._frames.append(_Frame(node, event.anchor))
        self._starts.append(self._nodes)

    def _close(self, event: Any) -> None:
        frame = self._frames.pop()
        size = self._nodes - self._starts.pop() + 1
        node = replace(frame.node, span=(frame.node.span[0], event.end_mark.index), first_key=frame.first_key)
        if frame.merges is not None:
            node = replace(node, value=self._merged(node, frame.merges))
        self._add(node, frame.anchor, size)

    # growing

    def _count(self, event: Any) -> None:
        self._count_one(self._at(event))

    def _count_one(self, at: Position) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} values, aliases written out"
            self.findings.add(at, (), message, _RIGHT_FILE)
            raise _GivenUp

    def _refuse_tag(self, event: Any) -> None:
        if event.tag is None:
            return
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        hint = "remove it; write text in quotes and numbers without"
        self.findings.add(self._at(event), self._path(), f"tags such as {shown(tag)} are not used here", hint)

    def _add(self, node: Node, anchor: str | None, size: int) -> None:
        if anchor:
            self._anchors[anchor] = (node, size)
        if not self._frames:
            self.root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.node.value, list):
            frame.node.value.append(node)
        elif isinstance(frame.node.value, dict) and frame.key is not None:
            if frame.key_merges:
                self._note_merge(frame, node)
            elif not frame.key_broken:
                frame.node.value[frame.key] = node.under(frame.key_at, frame.key_start)
            frame.key, frame.awaits_key = None, True

    # merge keys: what they bring keeps the place where it is written, and a map's own fields win

    def _note_merge(self, frame: _Frame, node: Node) -> None:
        maps = node.value if isinstance(node.value, list) else [node]
        if not frame.key_broken and not node.broken:
            if bad := next((one for one in maps if not isinstance(one.value, dict)), None):
                hint = "write `<<: *name` or `<<: [*one, *other]`, each the alias of a map"
                self.findings.add(bad.at, self._path(), "a merge key (`<<`) takes maps", hint)
            frame.merges = replace(node, key_at=frame.key_at)

    def _merged(self, own: Node, merges: Node) -> dict[str, Node]:
        maps = merges.value if isinstance(merges.value, list) else [merges]
        brought: dict[str, Node] = {}
        for each in maps:
            for key, node in each.fields().items():
                brought.setdefault(key, replace(node, merged=True))
        for _ in brought:
            self._count_one(merges.at)
        fields = own.fields()
        return {**brought, **{key: _removing(node) if key in brought else node for key, node in fields.items()}}


def _removing(node: Node) -> Node:
    return replace(node, removes=True) if node.value is None else node


# syntax

_SYNTAX_HINTS = (
    ("\\t", "indent with spaces; YAML allows no tabs there"),
    ("mapping values are not allowed", "a `key: value` stands where it cannot: check the indentation above"),
    ("could not find expected ':'", "a key without its colon, or a quote that never ends"),
    ("did not find expected key", "check the indentation of this line against its neighbours"),
    ("did not find expected ',' or", "a brace or bracket is not closed"),
    ("found unexpected end of stream", "a quote, brace or bracket is not closed"),
    ("did not find expected node content", "a value is missing"),
    ("invalid Unicode character escape", "write the character itself, or like \\U0001F680"),
    ("cannot start any token", "write the value in quotes"),
)


def _hint_of_line(lines: list[str]) -> str:
    """What to do about two mistakes that the parser's own words do not name."""
    line = lines[0] if lines else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "the line is indented with a tab: write spaces"
    if match := re.search(r"[:,\[]\s*(\$\{env:[^}]*\})", line):
        return f'inside braces a reference needs quotes: "{match[1]}"'
    return ""


def _syntax_problem(source: str, whole: str, error: yaml.YAMLError, findings: Findings) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = Position(source, mark.line + 1, mark.column + 1) if mark else Position(source, 1, 1)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    context = getattr(error, "context", None)
    text = f"{context}, {what}" if context else str(what)
    hint = _hint_of_line(whole.splitlines()[mark.line :][:1]) if mark else ""
    hint = hint or next((hint for mark_text, hint in _SYNTAX_HINTS if mark_text in text.replace("\t", "\\t")), "")
    findings.add(place, (), f"not valid YAML: {text}", hint or "check quotes, brackets and indentation near this line")
