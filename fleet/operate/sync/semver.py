"""Versions and ranges of versions, by semver.org and by the words that package managers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import total_ordering

_VERSION = re.compile(
    r"v?(?P<major>0|[1-9][0-9]{0,8})\.(?P<minor>0|[1-9][0-9]{0,8})\.(?P<patch>0|[1-9][0-9]{0,8})"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_BOUND = re.compile(
    r"(?P<operator>>=|<=|>|<|=|\^|~)?\s*v?(?P<major>[0-9]{1,9}|[xX*])(?:\.(?P<minor>[0-9]{1,9}|[xX*]))?"
    r"(?:\.(?P<patch>[0-9]{1,9}|[xX*]))?(?:-(?P<pre>[0-9A-Za-z.-]+))?"
)
_ANY = frozenset("xX*")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """One version. ``pre``: the parts of a pre-release, which comes before the release itself."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    def __lt__(self, other: Version) -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[object, ...]:
        parts = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre)
        return (self.major, self.minor, self.patch, not self.pre, parts)

    def __str__(self) -> str:
        tail = f"-{'.'.join(self.pre)}" if self.pre else ""
        return f"{self.major}.{self.minor}.{self.patch}{tail}"


Test = Callable[[Version], bool]


@dataclass(frozen=True, slots=True)
class Range:
    """Alternatives (``||``) of bounds that hold together. Pre-releases match only where a bound names one."""

    text: str
    alternatives: tuple[tuple[Test, ...], ...]
    pre: bool = False

    def holds(self, version: Version) -> bool:
        """Whether a version lies within."""
        if version.pre and not self.pre:
            return False
        return any(all(test(version) for test in tests) for tests in self.alternatives)


def version(text: str) -> Version | None:
    """``v1.2.3`` or ``1.2.3-rc.1``; None for anything else."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return None
    return Version(int(found["major"]), int(found["minor"]), int(found["patch"]), _pre(found["pre"]))


def version_range(text: str) -> Range:
    """``>=1.4 <2``, ``^1.2``, ``~1.2.3``, ``1.x``, ``*``, joined by ``||``. Raises ValueError with a sentence."""
    alternatives = []
    pre = False
    for part in text.split("||"):
        tests: list[Test] = []
        words = re.sub(r"(>=|<=|>|<|=|\^|~)\s+", r"\1", part.replace(",", " ")).split()
        if not words:
            raise ValueError(f"not a range of versions: {text!r}; write it like '>=1.4 <2', '^1.2' or '1.x'")
        for word in words:
            found = _BOUND.fullmatch(word)
            if found is None:
                raise ValueError(f"not a bound of versions: {word!r}; write it like '>=1.4 <2', '^1.2' or '1.x'")
            tests += _tests(found)
            pre = pre or bool(found["pre"])
        alternatives.append(tuple(tests))
    return Range(text, tuple(alternatives), pre)


def highest(names: Iterable[str], within: Range) -> str:
    """The name of the highest version within a range, empty where there is none."""
    known = [(number, name) for name in names if (number := version(name)) is not None and within.holds(number)]
    return max(known, key=lambda one: (one[0], one[1]))[1] if known else ""


def _pre(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


def _tests(found: re.Match[str]) -> list[Test]:
    given = []
    for part in ("major", "minor", "patch"):
        if found[part] is None or found[part] in _ANY:
            break
        given.append(int(found[part]))
    low = _padded(given, _pre(found["pre"]))
    operator = found["operator"] or "="
    if operator in {"^", "~"}:
        return [lambda seen: seen >= low, _below(_ceiling(given, operator))]
    return _plain_tests(operator, low, given)


def _plain_tests(operator: str, low: Version, given: list[int]) -> list[Test]:
    over = _raised(given, len(given) - 1) if given else None
    whole = len(given) == 3
    match operator:
        case ">=":
            return [lambda seen: seen >= low]
        case "<":
            return [_below(low)]
        case ">":
            return [lambda seen: seen > low] if whole else [_never if over is None else _from(over)]
        case "<=":
            return [lambda seen: seen <= low] if whole else ([] if over is None else [_below(over)])
    if whole:
        return [lambda seen: seen == low]
    return [lambda seen: seen >= low, *([] if over is None else [_below(over)])]


def _never(_version: Version) -> bool:
    return False


def _from(limit: Version) -> Test:
    return lambda seen: seen >= limit


def _below(limit: Version | None) -> Test:
    """Below a version, its own pre-releases not counted as below unless the limit is one."""
    if limit is None:
        return lambda _seen: True
    return lambda seen: (
        seen < limit
        and (bool(limit.pre) or (seen.major, seen.minor, seen.patch) != (limit.major, limit.minor, limit.patch))
    )


def _ceiling(given: list[int], operator: str) -> Version | None:
    """The first version that ``^`` (the first number that is not 0 stays) or ``~`` (the minor stays) excludes."""
    if not given:
        return None
    if operator == "~":
        return _raised(given, min(1, len(given) - 1))
    first = next((place for place, number in enumerate(given) if number), len(given) - 1)
    return _raised(given, first)


def _raised(given: list[int], place: int) -> Version:
    return _padded([*given[:place], given[place] + 1])


def _padded(numbers: list[int], pre: tuple[str, ...] = ()) -> Version:
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return Version(major, minor, patch, pre)
