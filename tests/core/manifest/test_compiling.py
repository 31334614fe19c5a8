"""Reading a manifest compiles one validator: that of the whole manifest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleet.core.manifest.models import Defaults, GroupFields, Pool, Spec

ROOT = Path(__file__).parents[3]
SCRIPT = """
import contextlib, io, sys
from fleet.cli import main
from fleet.core.manifest.base_model import Model

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = main(sys.argv[1:])

def below(model):
    return [one for each in model.__subclasses__() for one in (each, *below(each))]

print(code, *sorted(one.__name__ for one in below(Model) if one.__pydantic_complete__))
"""


def compiled_by(*command: str) -> str:
    """The exit code of a command and the models that it compiled, one line."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_verb_that_reads_a_manifest_compiles_the_manifest_only(tmp_path: Path) -> None:
    overlay = tmp_path / "cluster.yaml"
    overlay.write_text("spec: {broker: {url: 'redis://redis/0'}, kubernetes: {image: 'shop:1'}}\n")
    files = [str(ROOT / "manifests" / "quickstart.yaml"), str(overlay)]
    assert compiled_by("validate", *files) == "0 Manifest"
    assert compiled_by("render", "--target", "kubernetes", *files) == "0 Manifest"


def test_what_is_empty_is_what_an_empty_map_is() -> None:
    for model in (Pool, Spec, Defaults):
        assert model.empty() == model.model_validate({})
        assert model.empty().model_fields_set == set()


def test_written_are_the_fields_that_hold_something_by_their_names_in_the_text() -> None:
    group = GroupFields.model_validate({"remoteControl": {}, "replicas": 0, "env": None})
    assert group.written() == {"remoteControl", "replicas"}


def test_no_metadata_of_packages_is_read_to_compile_it_and_pydantic_is_left_as_it_was() -> None:
    ask = """
import sys
from fleet.core.manifest.parse import Source, parse
from fleet.errors import ManifestError
try:
    parse([Source("empty", b"{}")], environ={})
except ManifestError:
    print("importlib.metadata" in sys.modules, "pydantic.plugin._loader" in sys.modules)
import pydantic
class Other(pydantic.BaseModel):
    x: int
print(Other(x=1), "pydantic.plugin._loader" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "x=1 True"]
