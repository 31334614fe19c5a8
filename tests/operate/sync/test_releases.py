"""Code releases: a copy and a virtual environment for each version of the code, none for a commit that only scales."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from fleet.operate.sync.releases import unpinned
from tests.operate.sync.worlds import Place, Upstream, manifest

pytestmark = pytest.mark.timeout(400)  # pip on a busy machine
RELEASE = "  release: {source: {path: app, installer: pip}}\n  groups:"


def with_release(replicas: int, *, keep: int = 3) -> str:
    text = RELEASE.replace("installer: pip", f"installer: pip, keep: {keep}")
    return manifest(replicas).replace("  groups:", text)


def wheel(folder: Path, name: str, version: str, *, needs: str = "") -> None:
    """A package with one module, as a wheel made by hand: no index is asked."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wants = f"Requires-Dist: {needs}\n" if needs else ""
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wants}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def lock(upstream: Upstream, text: str) -> None:
    upstream.write("app/requirements.txt", f"--no-index\n--find-links vendor\n{text}\n")


@pytest.fixture
def code(upstream: Upstream) -> Upstream:
    """A repository with an application and its locked requirements."""
    wheel(upstream.work / "app" / "vendor", "paints", "1.0")
    lock(upstream, "paints==1.0")
    upstream.write("app/shop.py", "import paints\n")
    return upstream


def workdirs(place: Place) -> set[tuple[str, str]]:
    specs = [one.spec for one in place.world.observe().replicas.values()]
    return {(spec.workdir, spec.python) for spec in specs if spec is not None}


def says(python: str, folder: str, code: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_push_of_code_is_a_rollout_and_a_scaling_is_none(place: Place, code: Upstream) -> None:
    code.publish(with_release(2))
    _, state = place.look()
    assert state.conditions.get("Ready").state == "True", state.conditions.to_json()
    [(workdir, python)] = workdirs(place)
    assert says(python, workdir, "import shop; print(shop.paints.VERSION)") == "1.0"

    before = place.pids()
    code.publish(with_release(3))
    place.look()
    assert workdirs(place) == {(workdir, python)}
    assert before.items() <= place.pids().items()

    wheel(code.work / "app" / "vendor", "paints", "2.0")
    lock(code, "paints==2.0")
    code.commit("new paints")
    code.push()
    place.look()
    [(new_workdir, new_python)] = workdirs(place)
    assert says(new_python, new_workdir, "import shop; print(shop.paints.VERSION)") == "2.0"
    assert not set(before.values()) & set(place.pids().values())
    assert says(python, workdir, "import shop; print(shop.paints.VERSION)") == "1.0", "the earlier one stays"


REFUSED = {
    "not pinned": ("paints>=1.0", "does not say one exact version of each: paints>=1.0"),
    "not there": ("paints==9.9", "install"),
    "not whole": ("brushes==1.0", "check"),
}


@pytest.mark.parametrize(("requirements", "message"), REFUSED.values(), ids=REFUSED)
def test_a_release_that_cannot_be_made_leaves_the_fleet_as_it_is(
    place: Place, code: Upstream, requirements: str, message: str
) -> None:
    good = code.publish(manifest(1))
    place.look()
    wheel(code.work / "app" / "vendor", "brushes", "1.0", needs="handles")
    lock(code, requirements)
    code.publish(with_release(5))
    fetched, state = place.look()
    valid = fetched.conditions.get("Valid")
    assert (valid.state, valid.reason) == ("False", "ReleaseFailed")
    assert message in valid.message
    assert (state.applied, place.running()) == (good, ["clock.0"])
    assert not [path for path in place.places.releases.iterdir() if (path / "complete").exists()]


def test_a_build_that_was_killed_is_made_again(place: Place, code: Upstream) -> None:
    code.publish(with_release(1))
    place.look()
    [release] = place.places.releases.iterdir()
    (release / "complete").unlink()
    (release / "venv" / "pyvenv.cfg").unlink()
    _, state = place.look()
    assert state.conditions.get("Ready").state == "True"
    [(workdir, python)] = workdirs(place)
    assert says(python, workdir, "import shop; print(shop.paints.VERSION)") == "1.0"


def test_only_so_many_releases_are_kept(place: Place, code: Upstream) -> None:
    for version in ("a", "b"):
        code.write("app/shop.py", f"import paints  # {version}\n")
        code.publish(with_release(1, keep=1))
        place.look()
    [(workdir, _)] = workdirs(place)
    assert [path.name for path in place.places.releases.iterdir()] == [Path(workdir).parent.name]


@pytest.mark.parametrize(
    ("line", "is_loose"),
    [
        ("celery==5.5.0", False),
        ("celery[redis]==5.5.0 ; python_version > '3.8'", False),
        ("celery==5.5.0 --hash=sha256:abc", False),
        ("celery==5.5.0 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def", False),
        ("# a remark", False),
        ("", False),
        ("--index-url https://example.com/simple", False),
        ("./vendor/paints-1.0-py3-none-any.whl", False),
        ("paints @ https://example.com/paints-1.0.whl", False),
        ("celery", True),
        ("celery>=5", True),
        ("celery==5.*", True),
        ("celery==5.5.0,<6", False),
        ("-r other.txt", True),
        ("-e .", True),
    ],
)
def test_what_is_locked(line: str, is_loose: bool) -> None:
    assert bool(unpinned(line)) is is_loose


def test_by_hand_a_release_of_a_repository_is_refused(place: Place, tmp_path: Path) -> None:
    from fleet.errors import Refused
    from fleet.inputs.manifest import from_files

    (tmp_path / "fleet.yaml").write_text(with_release(1))
    with pytest.raises(Refused, match="made by `fleet sync`"):
        place.local().desired_of(from_files([str(tmp_path / "fleet.yaml")]))
