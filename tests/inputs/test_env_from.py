"""Variables from files and from the surroundings: how they are read, and that only their names are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.core.expand.env_from import BUNDLE, keys_of
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.expand.specs import secrets_of
from fleet.core.planning.spec_diff import changes
from fleet.core.spec import WorkerSpec, digest
from fleet.errors import ManifestError
from fleet.inputs.env_from import values_of, variables_in
from fleet.inputs.secrets import SecretError, fingerprints
from tests.core.texts import fleet, read

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=1", {"A": "1"}),
        ("export A=1\n\n# c\n  B = two words  ", {"A": "1", "B": "two words"}),
        ("A=1 # c\nB=1#c\nC=#c", {"A": "1", "B": "1#c", "C": ""}),
        ("A='x # y' # c", {"A": "x # y"}),
        (r'A="x\n\"y\" \\ $Z"', {"A": 'x\n"y" \\ $Z'}),
        (r"A='x\n'", {"A": r"x\n"}),
        ('A="x\ny"\nB=1', {"A": "x\ny", "B": "1"}),
        ("A=${B}", {"A": "${B}"}),
        ("A=", {"A": ""}),
        ("A=1\nA=2", {"A": "2"}),
        ("A=a=b", {"A": "a=b"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_a_dotenv_file_is_read(text: str, variables: dict[str, str]) -> None:
    assert variables_in(text, source=".env") == variables


@pytest.mark.parametrize("text", ["A=1\nwords", "A=1\n1A=2", 'A=1\nB="open', "A=1\nB='x' y", "A=1\n=2"])
def test_what_is_no_variable_is_told_with_its_line(text: str) -> None:
    with pytest.raises(SecretError, match=r"^\.env:2: "):
        variables_in(text, source=".env")


def manifest(sources: str, more: str = "") -> str:
    return fleet(f"a: {{command: [serve], replicas: 1, envFrom: {sources}{more}}}")


def spec_of(text: str, folder: Path, **environ: str) -> WorkerSpec:
    parsed = read(text).manifest
    values = values_of(parsed, folder=folder, environ=environ)
    facts = Facts(secrets=fingerprints(values, key=KEY))
    return expand(parsed, facts=facts).groups["a"].spec


def test_later_sources_win_and_env_wins_over_all(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=1\nC=1\nD=1")
    (tmp_path / "more.env").write_text("B=2\nC=2\nD=2")
    parsed = read(manifest("[{file: .env}, {file: more.env}, {inherit: [C, D]}]", ", env: {D: own}")).manifest
    values = values_of(parsed, folder=tmp_path, environ={"C": "3", "D": "3"})
    keys = keys_of(parsed.spec.groups["a"], values)
    assert {name: values[key] for name, key in keys.items()} == {"A": "1", "B": "2", "C": "3"}


def test_a_change_of_a_value_replaces_and_is_shown_by_name_only(tmp_path: Path) -> None:
    text = manifest("[{inherit: [TOKEN]}]")
    before, after = spec_of(text, tmp_path, TOKEN="first-value"), spec_of(text, tmp_path, TOKEN="two")
    assert digest(before) != digest(after)
    assert digest(before) == digest(spec_of(text, tmp_path, TOKEN="first-value", OTHER="x"))
    assert list(changes(before, after)) == ["envFrom.TOKEN: changed"]
    assert "first-value" not in str(before)


def test_what_an_apply_read_is_what_the_controller_has(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1")
    parsed = read(manifest("[{file: .env}]")).manifest
    values = values_of(parsed, folder=tmp_path, environ={})
    (tmp_path / ".env").unlink()
    assert BUNDLE in secrets_of(parsed)
    assert values_of(parsed, folder=tmp_path, environ={}, bundle=values[BUNDLE]) == values


@pytest.mark.parametrize(
    ("source", "told"), [("{file: gone.env}", "there is no .*gone.env"), ("{inherit: [A, GONE]}", "not set: GONE")]
)
def test_what_is_missing_is_told_unless_it_is_optional(source: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=told):
        values_of(read(manifest(f"[{source}]")).manifest, folder=tmp_path, environ={"A": "1"})
    optional = source.replace("}", ", optional: true}")
    found = values_of(read(manifest(f"[{optional}]")).manifest, folder=tmp_path, environ={"A": "1"})
    assert "gone" not in str(found).lower()


@pytest.mark.parametrize("source", ["{}", "{file: a, inherit: [B]}", "{inherit: []}", "{inherit: [FLEET_X]}"])
def test_a_source_that_says_nothing_or_two_things_is_refused(source: str) -> None:
    with pytest.raises(ManifestError, match="envFrom"):
        read(manifest(f"[{source}]"))


@pytest.mark.parametrize("value", ["$HOME/x", "${DATABASE_URL}", "${X:-d}"])
def test_a_reference_that_nothing_replaces_is_warned_of(value: str) -> None:
    parsed = read(fleet(f"a: {{command: [serve], replicas: 1, env: {{V: '{value}', W: 'costs 5$'}}}}"))
    assert ["spec.groups.a.env.V" in warning.path for warning in parsed.warnings] == [True]
