"""Tokens, sessions, and the names in the audit."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.errors import FleetError
from fleet.operate.dashboard import access
from fleet.operate.dashboard.access import Access, Denied, Person, Policy, Token, host_name, read_tokens

LONG = "x" * 30


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_token_file_names_people(tmp_path: Path) -> None:
    path = written(tmp_path, f"# who may come\nann {LONG}1\n\n{LONG}2\n")
    judge = Access(Policy(frozenset(), tokens=read_tokens(path)))
    assert [judge.name_of(token) for token in (f"{LONG}1", f"{LONG}2", LONG, "")] == ["ann", "token", "", ""]
    assert LONG not in repr(judge)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("", 0o600, "holds no token"),
        ("ann short", 0o600, ":1: no token"),
        (f"ann {LONG} more", 0o600, ":1: no token"),
        (f"ann {LONG}", 0o640, "by others"),
    ],
)
def test_a_token_file_that_protects_nothing_is_refused(tmp_path: Path, text: str, mode: int, said: str) -> None:
    with pytest.raises(FleetError, match=said):
        read_tokens(written(tmp_path, text, mode))


def test_a_link_is_no_token_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path, LONG))
    with pytest.raises(FleetError, match="cannot read"):
        read_tokens(link)
    with pytest.raises(FleetError, match="cannot read"):
        read_tokens(tmp_path / "none")


def test_a_session_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Access(Policy(frozenset(), tokens=(Token.of("ann", LONG),)))
    session = judge.log_in(LONG)
    assert judge.person({}, {"fleet": session}, "").name == "ann"
    monkeypatch.setattr(access, "SESSION_SECONDS", -1.0)
    with pytest.raises(Denied):
        judge.person({}, {"fleet": judge.log_in(LONG)}, "")


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_SESSIONS", 3)
    judge = Access(Policy(frozenset(), tokens=(Token.of("ann", LONG),)))
    sessions = [judge.log_in(LONG) for _ in range(5)]
    known = []
    for session in sessions:
        try:
            known.append(judge.person({}, {"fleet": session}, "").name)
        except Denied:
            known.append("")
    assert known == ["", "", "ann", "ann", "ann"]


@pytest.mark.parametrize(
    ("host", "name"),
    [("Localhost:80", "localhost"), ("[::1]:80", "::1"), ("127.0.0.1", "127.0.0.1"), ("", ""), ("[", ""), ("a@b", "b")],
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name


def test_a_name_in_the_audit_is_one_printable_line() -> None:
    judge = Access(Policy(frozenset(), trust_header="x-user"))
    person = judge.person({"x-user": "ann\x1b[31m\x85" + "b" * 500}, {}, "")
    assert person.by.isprintable()
    assert len(person.by) < 150
    assert Person("ann", "").by == "ann via dashboard"


def test_a_proxy_has_one_address_in_both_its_forms() -> None:
    judge = Access(Policy(frozenset(), trust_header="x-user", proxies=frozenset({"10.0.0.7", "fd00::7"})))
    for peer in ("10.0.0.7", "::ffff:10.0.0.7", "fd00::7"):
        assert judge.person({"x-user": "ann"}, {}, peer).name == "ann"
    for peer in ("10.0.0.8", "::ffff:10.0.0.70", ""):
        with pytest.raises(Denied):
            judge.person({"x-user": "ann"}, {}, peer)
