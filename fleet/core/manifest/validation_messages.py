"""What is wrong with a single value, in a sentence and a hint: one function for each kind of pydantic's errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.core.manifest import field_types
from fleet.core.manifest.field_paths import aliases, model_at
from fleet.core.manifest.models import API_VERSION
from fleet.core.manifest.tree import Path
from fleet.core.manifest.yaml_scalars import resolve
from fleet.core.text.format import shown
from fleet.core.text.suggest import did_you_mean, kind_of, one_of

PATTERN_HINTS = {
    field_types.NAME_PATTERN: "use lower-case letters, digits and hyphens, a letter first, at most 31 in all",
    field_types.GROUP_PATTERN: "use lower-case letters, digits and hyphens, a letter first, at most 63 in all",
    field_types.TEMPLATE_PATTERN: "use letters, digits, _ . : @ / + - and {fleet}, {group}, {index}, {replica}, {host}",
    field_types.ENV_PATTERN: "use letters, digits and underscores, no digit first",
    field_types.QUEUE_PATTERN: "use letters, digits and any of _ . : @ / -, at most 200 in all",
    field_types.TASK_PATTERN: "use no spaces, at most 200 characters",
    field_types.RATE_PATTERN: "write it like 10/s, 100/m or 5/h",
    field_types.IMPORT_PATTERN: "write it like package.module:attribute",
    field_types.URL_PATH_PATTERN: "write it like /healthz, with no spaces",
    field_types.HOST_PATTERN: "write it like shop.example.org",
}


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """A value that does not fit, and pydantic's words on it."""

    path: Path
    value: Any
    context: Mapping[str, Any]


Sentence = Callable[[InvalidValue], tuple[str, str]]


def _expected(what: str) -> Sentence:
    def sentence(invalid: InvalidValue) -> tuple[str, str]:
        return f"expected {what}, got {kind_of(invalid.value)}", _type_hint(what, invalid.path, invalid.value)

    return sentence


def _type_hint(what: str, path: Path, value: Any) -> str:
    name = path[-1] if path else ""
    if what == _TEXT and isinstance(value, bool | int | float):
        return f'write "{str(value).lower() if isinstance(value, bool) else value}" in quotes'
    if what == _WHOLE and isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return f"write {value} without quotes"
    if name == "queues" and isinstance(value, str):
        return f"write [{value}]"
    if name == "command" and isinstance(value, str):
        return f"write the program and its arguments as a list: {_as_list(value)}"
    if what == _MAP and (place := model_at(path)):
        return f"known fields: {', '.join(aliases(place))}"
    return _TYPE_HINTS[what]


def _as_list(command: str) -> str:
    words = [word if resolve(word) == (word, "", "") else f'"{word}"' for word in command.split()]
    return "[" + ", ".join(words[:6]) + (", …" if len(words) > 6 else "") + "]"


def _unknown_word(invalid: InvalidValue) -> tuple[str, str]:
    path, value = invalid.path, invalid.value
    known = re.findall(r"'([^']*)'", str(invalid.context.get("expected", "")))
    if path == ("apiVersion",):
        return f"unknown version {shown(value)}", f"this fleet reads {API_VERSION}"
    if not isinstance(value, str):
        return f"expected {one_of(known)}, got {kind_of(value)}", f"known: {', '.join(sorted(known))}"
    if path == ("spec", "broker") and "://" in value:
        return "a broker's URL goes under url", "write `broker: {url: …}`, best as {secret: name}"
    name = "pool" if path[-2:] == ("pool", "type") else path[-1]
    return f"unknown {name} {shown(value)}", did_you_mean(value, known)


_PATTERN_KINDS = {field_types.IMPORT_PATTERN: "a module with an attribute", field_types.RATE_PATTERN: "a rate"}


def _pattern(invalid: InvalidValue) -> tuple[str, str]:
    pattern = str(invalid.context["pattern"])
    what = _PATTERN_KINDS.get(pattern, "a valid name")
    return f"{shown(invalid.value)} is not {what}", PATTERN_HINTS.get(pattern, "")


def _bound(words: str, key: str) -> Sentence:
    def sentence(invalid: InvalidValue) -> tuple[str, str]:
        limit = invalid.context[key]
        limit = int(limit) if float(limit).is_integer() else limit
        got = shown(invalid.value) if isinstance(invalid.value, str) else invalid.value
        return f"must be {words} {limit:,}, got {got}", f"write a value of {words} {limit}"

    return sentence


def _length(invalid: InvalidValue) -> tuple[str, str]:
    if not invalid.value:
        return "must not be empty", "fill it in or leave the field out"
    most = invalid.context.get("max_length", 0)
    return (
        f"too long: {len(invalid.value):,}, and {most:,} is the most",
        "shorten it, or put it in a file and give its path",
    )


def _own_error(invalid: InvalidValue) -> tuple[str, str]:
    message, _, hint = str(invalid.context["error"]).partition("; ")
    return message, hint


def other(invalid: InvalidValue) -> tuple[str, str]:
    """What no other sentence covers."""
    return f"not valid here: {invalid.context['msg']}", "docs/manifest.md tells what each field takes"


_TEXT, _WHOLE, _NUMBER, _BOOLEAN = "text", "a whole number", "a number", "true or false"
_MAP, _LIST = "a map", "a list"
_TYPE_HINTS = {
    _TEXT: 'write text, in quotes when in doubt: "…"',
    _WHOLE: "write a whole number, such as 10",
    _NUMBER: "write a number, such as 1 or 0.5",
    _BOOLEAN: "write true or false, without quotes",
    _MAP: "write `name: value` lines below it, or {name: value}",
    _LIST: "write [a, b]",
}
SENTENCES: dict[str, Sentence] = {
    "string_type": _expected(_TEXT),
    "int_type": _expected(_WHOLE),
    "int_from_float": _expected(_WHOLE),
    "float_type": _expected(_NUMBER),
    "bool_type": _expected(_BOOLEAN),
    "model_type": _expected(_MAP),
    "model_attributes_type": _expected(_MAP),
    "dict_type": _expected(_MAP),
    "list_type": _expected(_LIST),
    "literal_error": _unknown_word,
    "string_pattern_mismatch": _pattern,
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_short": _length,
    "string_too_long": _length,
    "too_short": _length,
    "too_long": _length,
    "value_error": _own_error,
}
