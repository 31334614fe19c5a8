"""Versions and ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.operate.sync.semver import Version, highest, version, version_range

numbers = st.integers(0, 30)
pres = st.lists(st.sampled_from(["alpha", "beta", "rc", "1", "2", "10"]), max_size=3).map(tuple)
versions = st.builds(Version, numbers, numbers, numbers, pres)


@given(versions)
def test_a_version_reads_back_as_itself(one: Version) -> None:
    assert version(str(one)) == one
    assert version(f"v{one}") == one


@given(st.lists(versions, min_size=3, max_size=3))
def test_versions_have_one_order(three: list[Version]) -> None:
    low, middle, high = sorted(three)
    assert low <= middle <= high
    assert (low < high) or low == high == middle


def test_the_order_is_that_of_semver_org() -> None:
    told = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
    ]
    read = [version(text) for text in told]
    assert read == sorted(one for one in read if one is not None)


@pytest.mark.parametrize("text", ["1", "1.2", "01.2.3", "1.2.3.4", "release-1.2.3", "", "1.2.x", "1.2.-3"])
def test_other_tags_are_no_versions(text: str) -> None:
    assert version(text) is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (">=1.4 <2", ["1.4.0", "1.9.9"], ["1.3.9", "2.0.0", "2.0.0-rc.1"]),
        (">= 1.4, < 2", ["1.4.0"], ["2.0.0"]),
        ("^1.2", ["1.2.0", "1.99.0"], ["1.1.9", "2.0.0"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "0.2.2"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        ("1.x", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.0"]),
        ("1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("*", ["0.0.1", "9.9.9"], ["1.0.0-rc.1"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        ("<=1.2", ["1.2.9"], ["1.3.0"]),
        ("<1 || >=3", ["0.9.0", "3.0.0"], ["1.0.0", "2.9.9"]),
        (">=1.0.0-rc.1 <2", ["1.0.0-rc.2", "1.0.0"], ["1.0.0-beta"]),
    ],
)
def test_a_range_holds_what_it_says(bounds: str, inside: list[str], outside: list[str]) -> None:
    within = version_range(bounds)
    for text in [*inside, *outside]:
        one = version(text)
        assert one is not None
        assert within.holds(one) == (text in inside), text


@pytest.mark.parametrize("text", ["", "||", "latest", ">=1.2.3.4", "1.2 ||"])
def test_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        version_range(text)


@given(st.lists(versions, max_size=8))
def test_the_highest_is_one_that_no_other_exceeds(known: list[Version]) -> None:
    released = [one for one in known if not one.pre]
    found = highest([f"v{one}" for one in known] + ["nightly"], version_range("*"))
    assert found == (f"v{max(released)}" if released else "")
