"""Dataclasses from plain JSON documents, read by the types of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_Decoder = Callable[[Any], Any]


def decoded(kind: type[T], document: object) -> T:
    """The value of a dataclass that was written as ``document``.

    A map gives its fields by name (``busy_seconds`` or ``busySeconds``), a list gives them in order. A field that the
    document leaves out has its default. Numbers are kept as they are written: a 60 in a field of floats stays an int.
    Raises TypeError or ValueError for a document of another shape.
    """
    value: T = _decoder(cast("Any", kind))(document)
    return value


@cache
def _decoder(kind: Any) -> _Decoder:
    origin, of = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_decoder(kind)
    if origin in (Union, UnionType):
        return partial(_optional, *(_decoder(one) for one in of if one is not NoneType))
    if origin is Literal:
        return partial(_literal, of)
    if origin is tuple:
        return partial(_tuple, [_decoder(one) for one in of if one is not ...], ... in of)
    if origin is frozenset:
        return partial(_frozenset, _decoder(of[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return partial(_mapping, _decoder(of[1]))
    return partial(_scalar, (int, float) if kind is float else (kind,), kind is bool)


def _dataclass_decoder(kind: Any) -> _Decoder:
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.init]
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    decoders = {name: _decoder(types[name]) for name in names}
    written = {_camel(name): name for name in names} | {name: name for name in names}

    def decode(document: Any) -> Any:
        if isinstance(document, list | tuple):
            document = dict(zip(names, document, strict=False)) if len(document) <= len(names) else None
        if not isinstance(document, Mapping):
            raise TypeError(f"not a {kind.__name__}")
        values = {}
        for key, value in document.items():
            if (name := written.get(key)) is None:
                raise TypeError(f"{kind.__name__} has no field {key!r}")
            values[name] = decoders[name](value)
        if missing := required - values.keys():
            raise TypeError(f"{kind.__name__} without {', '.join(sorted(missing))}")
        return kind(**values)

    return decode


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _optional(decoder: _Decoder, value: Any) -> Any:
    return None if value is None else decoder(value)


def _literal(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {known}")
    return value


def _tuple(decoders: list[_Decoder], is_open: bool, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"not a list: {value!r}")
    if is_open:
        return tuple(map(decoders[0], value))
    return tuple(decoder(one) for decoder, one in zip(decoders, value, strict=True))


def _frozenset(decoder: _Decoder, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(f"not a list: {value!r}")
    return frozenset(map(decoder, value))


def _mapping(decoder: _Decoder, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"not a map: {value!r}")
    return {key: decoder(one) for key, one in value.items()}


def _scalar(kinds: tuple[type, ...], is_flag: bool, value: Any) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool) != is_flag:
        raise TypeError(f"not a {kinds[-1].__name__}: {value!r}")
    return value
