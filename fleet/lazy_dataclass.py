"""Dataclasses whose methods are written when they are first called.

The standard library compiles up to six functions for each class while its module is imported. A command imports more
than a hundred such classes and makes instances of a part of them, so this took a sixth of its time. Here the class and
its fields are made as ever, and ``__init__``, ``__eq__``, ``__hash__`` and ``__repr__`` each at its first call. For
modules that commands import; elsewhere there is nothing to gain.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False, eq=True, order=False):
        """As ``dataclasses.dataclass``, and so for the type checker."""

        def made(given):
            if order or _is_special(given):
                options = {"frozen": frozen, "slots": slots, "kw_only": kw_only, "eq": eq, "order": order}
                return dataclasses.dataclass(given, **options)
            return _lazy(given, frozen=frozen, slots=slots, kw_only=kw_only, eq=eq)

        return made if cls is None else made(cls)


_unwritten: dict[type, tuple[str, ...]] = {}


def write_all() -> None:
    """Write every method now: before a fork, after which each process would write them in memory of its own."""
    while _unwritten:
        cls, names = _unwritten.popitem()
        for name in names:
            _write(cls, name)


def _is_special(cls: type) -> bool:
    """Whether the standard library has to do it: a class with such methods of its own, one that is derived from a
    dataclass, or with an argument that is no field."""
    own = cls.__dict__.keys() & {*_WRITERS, "__setattr__", "__delattr__", "__getstate__", "__setstate__"}
    derived = any(map(dataclasses.is_dataclass, cls.__mro__[1:]))
    return bool(own) or derived or any("InitVar" in str(kind) for kind in inspect.get_annotations(cls).values())


def _lazy(cls: type, *, frozen: bool, slots: bool, kw_only: bool, eq: bool) -> type:
    if not cls.__doc__:  # the standard library would write its signature there, which takes longer than all else
        cls.__doc__ = cls.__name__
    make = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
    made: Any = make(cls)
    params = made.__dataclass_params__
    params.init, params.repr, params.eq, params.frozen = True, True, eq, frozen
    names = ("__init__", "__repr__", *(("__eq__",) if eq else ()), *(("__hash__",) if eq and frozen else ()))
    if eq:
        made.__hash__ = None
    for name in names:
        setattr(made, name, _writing(made, name))
    if frozen:
        _freeze(made)
    _unwritten[made] = names
    return made  # type: ignore[no-any-return]


def _freeze(cls: Any) -> None:
    def refused(self: Any, name: str) -> bool:
        return type(self) is cls or name in cls.__dataclass_fields__

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if refused(self, name):
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_attribute(self: Any, name: str) -> None:
        if refused(self, name):
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    cls.__setattr__ = _named(set_attribute, cls, "__setattr__")
    cls.__delattr__ = _named(delete_attribute, cls, "__delattr__")
    if "__slots__" in cls.__dict__:  # without them, pickle goes round __setattr__
        cls.__getstate__, cls.__setstate__ = _state, _set_state


def _state(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)


# the methods


def _writing(cls: type, name: str) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _write(cls, name)(self, *args, **kwargs)

    return _named(method, cls, name)


def _write(cls: type, name: str) -> Callable[..., Any]:
    """Put a method into its class. Two threads may do so at once: both write the same."""
    method = _named(_WRITERS[name](dataclasses.fields(cls), cls), cls, name)
    setattr(cls, name, method)
    return method


def _named(method: Callable[..., Any], cls: type, name: str) -> Callable[..., Any]:
    method.__name__, method.__qualname__, method.__module__ = name, f"{cls.__qualname__}.{name}", cls.__module__
    return method


def _compiled(head: str, body: list[str], names: dict[str, Any]) -> Callable[..., Any]:
    exec("\n ".join([f"def method({head}):", *body]), names)
    found: Callable[..., Any] = names["method"]
    return found


def _init(fields: tuple[Any, ...], cls: type) -> Callable[..., Any]:
    names: dict[str, Any] = {"_put": object.__setattr__, "_absent": object()}
    positional, keyword = ["self"], list[str]()
    body: list[str] = []
    for one in fields:
        value = one.name
        argument = one.name
        if one.default is not dataclasses.MISSING:
            names[f"_of_{one.name}"] = one.default
            argument += f"=_of_{one.name}"
            value = one.name if one.init else f"_of_{one.name}"
        elif one.default_factory is not dataclasses.MISSING:
            names[f"_of_{one.name}"] = one.default_factory
            argument += "=_absent"
            made = f"_of_{one.name}()"
            value = f"{made} if {one.name} is _absent else {one.name}" if one.init else made
        elif not one.init:
            continue  # __post_init__ gives it its value
        body.append(f"_put(self, {one.name!r}, {value})")
        if one.init:
            (keyword if one.kw_only else positional).append(argument)
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    head = [*positional, *(["*", *keyword] if keyword else [])]
    return _compiled(", ".join(head), body or ["pass"], names)


def _values(of: str, names: list[str]) -> str:
    return "(" + "".join(f"{of}.{name}, " for name in names) + ")"


def _eq(fields: tuple[Any, ...], _cls: type) -> Callable[..., Any]:
    names = [one.name for one in fields if one.compare]
    same = f"return {_values('self', names)} == {_values('other', names)}"
    return _compiled("self, other", [f"if other.__class__ is self.__class__: {same}", "return NotImplemented"], {})


def _hash(fields: tuple[Any, ...], _cls: type) -> Callable[..., Any]:
    names = [one.name for one in fields if (one.compare if one.hash is None else one.hash)]
    return _compiled("self", [f"return hash({_values('self', names)})"], {})


def _repr(fields: tuple[Any, ...], _cls: type) -> Callable[..., Any]:
    names = [one.name for one in fields if one.repr]

    def method(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({values})"

    return recursive_repr()(method)


_WRITERS: dict[str, Callable[[tuple[Any, ...], type], Callable[..., Any]]] = {
    "__init__": _init,
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
}
