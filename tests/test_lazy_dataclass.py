"""Lazy dataclasses are as those of the standard library, in every way of using them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, astuple, field, fields, replace
from typing import Any, ClassVar

import pytest

from fleet import lazy_dataclass


def made(decorate: Any) -> dict[str, type]:
    """The same classes, by either decorator."""

    @decorate(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 0

    @decorate(slots=True)
    class Open:
        x: int
        many: list[int] = field(default_factory=list)

    @decorate
    class Plain:
        x: int
        label: ClassVar[str] = "plain"
        hidden: str = field(default="h", repr=False, compare=False)

    @decorate(frozen=True, slots=True)
    class Worked:
        x: int
        double: int = field(init=False, default=0)
        told: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "double", self.x * 2)
            object.__setattr__(self, "told", self.x)

    @decorate(frozen=True, slots=True, kw_only=True)
    class Named:
        x: int = 1
        y: int

    @decorate(slots=True, eq=False)
    class Same:
        x: int

    @decorate(frozen=True, slots=True, order=True)
    class Ordered:
        x: int

    @decorate(frozen=True)
    class Told:
        x: int

        def __repr__(self) -> str:
            return "told"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Told)

        def __hash__(self) -> int:
            return 7

    @decorate(frozen=True)
    class Derived(Point):
        z: int = 3

    @decorate(frozen=True, slots=True)
    class Empty:
        pass

    @decorate(frozen=True, slots=True)
    class Early:
        """An argument that is no field."""

        x: int
        start: dataclasses.InitVar[int] = 4  # type: ignore[assignment]
        end: int = field(init=False, default=0)

        def __post_init__(self, start: int) -> None:
            object.__setattr__(self, "end", start)

    return {
        cls.__name__: cls for cls in (Point, Open, Plain, Worked, Named, Same, Ordered, Told, Derived, Empty, Early)
    }


STANDARD, LAZY = made(dataclasses.dataclass), made(lazy_dataclass.dataclass)
CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, 3), {}),
    ((1, 2, 3, 4, 5), {}),
    ((), {"x": 1}),
    ((), {"y": 2}),
    ((), {"x": 1, "y": 2}),
    ((1,), {"x": 1}),
    ((1,), {"z": 9}),
    ((1,), {"other": 1}),
)


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of it: a value, or the error as text."""
    try:
        return act()
    except (TypeError, AttributeError, FrozenInstanceError) as error:
        return type(error).__name__, str(error)


def refusal(act: Callable[[], Any]) -> Any:
    """A value, or that it is refused: in the standard library the error depends on the version of Python."""
    try:
        return act()
    except (TypeError, AttributeError):
        return "refused"


def uses(cls: type, words: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
    """What the use of an instance gives, in values that do not depend on the class itself."""

    def new() -> Any:
        return cls(*words, **named)

    def changed(name: str, value: Any) -> Any:
        one = new()
        setattr(one, name, value)
        return repr(one)

    def without(name: str) -> Any:
        one = new()
        delattr(one, name)
        return hasattr(one, name)

    return [
        outcome(lambda: repr(new())),
        outcome(lambda: new() == new()),
        outcome(lambda: new() != cls(5)),
        outcome(lambda: new() == 5),
        outcome(lambda: hash(new()) == hash(new())),
        outcome(lambda: new() < new()),
        outcome(lambda: asdict(new())),
        outcome(lambda: astuple(new())),
        outcome(lambda: repr(replace(new(), x=8))),
        outcome(lambda: repr(copy.copy(new()))),
        outcome(lambda: repr(copy.deepcopy(new()))),
        refusal(lambda: changed("x", 3)),
        refusal(lambda: changed("nothing", 3)),
        refusal(lambda: without("x")),
    ]


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_each_use_gives_the_same(name: str, call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    assert uses(LAZY[name], *call) == uses(STANDARD[name], *call)


@pytest.mark.parametrize("name", STANDARD)
def test_the_class_says_the_same_of_itself(name: str) -> None:
    own, other = LAZY[name], STANDARD[name]
    assert [str(one) for one in fields(own)] == [str(one) for one in fields(other)]
    for attribute in ("__dataclass_params__", "__match_args__", "__slots__", "__qualname__", "__module__"):
        assert repr(getattr(own, attribute, None)) == repr(getattr(other, attribute, None)), attribute


@lazy_dataclass.dataclass(frozen=True, slots=True)
class Sent:
    """A class that pickle finds."""

    x: int
    many: tuple[int, ...] = ()


def test_a_frozen_one_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(Sent(1, (2, 3)))) == Sent(1, (2, 3))


def test_a_subclass_that_is_no_dataclass_keeps_the_fields_frozen() -> None:
    class More(Sent):
        pass

    one = More(1)
    one.note = "own"  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        one.x = 2  # type: ignore[misc]


def test_a_list_that_holds_itself_can_be_shown() -> None:
    one = LAZY["Open"](1)
    one.many.append(one)
    assert repr(one).endswith("Open(x=1, many=[...])")


def test_all_are_written_before_a_fork() -> None:
    """No method is left for the children to write."""
    ask = """
from fleet import lazy_dataclass
import fleet.core.spec, fleet.core.desired
lazy_dataclass.write_all()
lazy_dataclass._write = None
spec = fleet.core.spec.LimitsSpec()
assert spec == fleet.core.spec.LimitsSpec() and hash(spec) == hash(spec) and repr(spec)
"""
    subprocess.run([sys.executable, "-c", ask], check=True)
