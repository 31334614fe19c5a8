"""What may be written to the disk: compared with what the kernel does with the same links."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.operate.sync.tree_rules import LINK, SUBMODULE, Entry, TreeRefused, check

names = st.sampled_from(["a", "b", "c"])
parts = st.sampled_from(["a", "b", "c", "..", "."])
targets = st.lists(parts, min_size=1, max_size=4).map("/".join) | st.sampled_from(["/etc/passwd", "../x", "a/../../x"])


def entry(path: str, mode: str = "100644", size: int = 1) -> Entry:
    return Entry(mode, "0" * 40, size, path)


def refused(links: dict[str, str]) -> bool:
    try:
        check([entry(path, LINK) for path in links], links, most_bytes=1 << 20)
    except TreeRefused:
        return True
    return False


@given(st.dictionaries(names | st.tuples(names, names).map("/".join), targets, max_size=4))
def test_a_link_that_leads_out_is_always_refused(links: dict[str, str]) -> None:
    """Whatever resolves inside is inside: a tree that passes has no link that the kernel follows to the outside."""
    whole = {path: to for path, to in links.items() if not any(path.startswith(f"{other}/") for other in links)}
    if refused(whole):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.path.realpath(folder)) / "tree"
        for name in "abc":
            if name not in whole:
                (root / name).mkdir(parents=True)
        root.mkdir(exist_ok=True)
        for path, to in whole.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(to, root / path)
        for path in whole:
            assert os.path.realpath(root / path).startswith(str(root)), (path, whole)


@pytest.mark.parametrize(
    ("links", "is_refused"),
    [
        ({"current": "releases/7"}, False),
        ({"a/b": "../c"}, False),
        ({"a/b": "../../c"}, True),
        ({"a": "/etc"}, True),
        ({"a": "b", "b": "a"}, True),
        ({"a": "."}, False),
        ({"x": "d/../.."}, True),
        ({"d": "e/f", "x": "d/../../.."}, True),
    ],
)
def test_links(links: dict[str, str], is_refused: bool) -> None:
    assert refused(links) is is_refused


@pytest.mark.parametrize("path", ["../x", "/x", "a/../x", ".git/config", "a/.GIT/hooks/x", "a//b", "a" * 2000])
def test_paths_that_leave_the_tree_are_refused(path: str) -> None:
    with pytest.raises(TreeRefused):
        check([entry(path)], {}, most_bytes=1 << 20)


def test_all_that_is_wrong_is_said_at_once() -> None:
    entries = [entry("big", size=2 << 20), entry("l", LINK), entry("odd", "040000")]
    with pytest.raises(TreeRefused) as caught:
        check(entries, {"l": "/x"}, most_bytes=1 << 20)
    assert "maxSize" in caught.value.message
    assert "leads out of the tree" in caught.value.message
    assert "unknown mode" in caught.value.message


def test_a_submodule_is_left_out_and_no_reason_to_refuse() -> None:
    check([entry("vendor", SUBMODULE, 0), entry("fleet.yaml")], {}, most_bytes=1 << 20)
