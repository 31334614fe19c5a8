"""A server of the embedded broker is new enough, and what is known to be wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.broker import embedded
from fleet.broker.server_version import LEAST, Server, advisories, check_server, known_holes, server_at, warning
from fleet.errors import Refused


def program(folder: Path, says: str) -> str:
    path = folder / f"server-{abs(hash(says))}"
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("says", "server"),
    [
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64", Server("redis", (6, 2, 14))),
        ("Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", Server("valkey", (8, 1, 4))),
        ("something else", None),
        ("", None),
    ],
)
def test_a_server_says_what_it_is(tmp_path: Path, says: str, server: Server | None) -> None:
    assert server_at(program(tmp_path, says)) == server


def test_the_server_of_this_machine_says_what_it_is() -> None:
    found = server_at(embedded.find_server())
    assert found is not None
    assert found.version >= LEAST


def test_a_server_that_is_too_old_is_refused_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"Redis 5\.0\.14; fleet needs 6\.2\.0"):
        check_server(program(tmp_path, "Redis server v=5.0.14 sha=0"))
    check_server(program(tmp_path, "who knows"))
    check_server(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("product", "version", "has"),
    [
        ("redis", (6, 2, 14), True),
        ("redis", (6, 2, 20), False),
        ("redis", (7, 0, 15), True),  # a branch that was never mended
        ("redis", (7, 2, 10), True),
        ("redis", (7, 2, 11), False),
        ("redis", (8, 2, 1), True),
        ("redis", (8, 4, 0), False),
        ("valkey", (8, 1, 3), True),
        ("valkey", (8, 1, 4), False),
        ("valkey", (9, 0, 0), False),
    ],
)
def test_a_hole_is_in_the_versions_before_its_branch_was_mended(
    product: str, version: tuple[int, int, int], has: bool
) -> None:
    found = {hole.id for hole in known_holes(Server(product, version))}
    assert ("CVE-2025-49844" in found) is has


def test_what_is_said_names_the_server_and_each_hole_once(tmp_path: Path) -> None:
    path = program(tmp_path, "Redis server v=6.2.14 sha=0")
    said = warning(path)
    assert said.startswith(f"{path} is Redis 6.2.14, which has known holes (")
    assert said.count("CVE-2025-49844") == 1
    assert warning(program(tmp_path, "Redis server v=99.0.0 sha=0")) == ""


def test_the_list_is_in_order() -> None:
    assert len({(one.id, one.product) for one in advisories()}) == len(advisories())
    for one in advisories():
        assert list(one.fixed) == sorted(one.fixed)
        assert one.since < one.fixed[0]
