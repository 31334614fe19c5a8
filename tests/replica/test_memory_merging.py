"""Asking the kernel to merge equal pages, and finding out whether it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fleet.core.spec import WorkerSpec
from fleet.replica.memory_merging import why_not_merged
from fleet.state.paths import Places
from tests.replica.test_launch import Launchpad, spec_of

TELLS = Path("/proc/self/ksm_stat")
kernel_tells = pytest.mark.skipif(
    not TELLS.exists() or "ksm_merge_any" not in TELLS.read_text(), reason="this kernel does not tell who asked"
)
SAYS = (sys.executable, "-S", "-c", f"print([line for line in open('{TELLS}') if 'merge_any' in line][0])")


def report(folder: Path, spec: WorkerSpec) -> str:
    pad = Launchpad(Places.of(folder / "home", "shop"))
    assert pad.run(spec) == 0
    return pad.log.strip()


@kernel_tells
def test_a_program_that_wants_it_is_merged_and_no_other(short_tmp: Path) -> None:
    assert report(short_tmp / "with", spec_of(SAYS, merge_memory=True)) == "ksm_merge_any: yes"
    assert report(short_tmp / "without", spec_of(SAYS)) == "ksm_merge_any: no"


@kernel_tells
@pytest.mark.parametrize(
    ("run", "why"),
    [
        ("1\n", ""),
        ("0\n", "the kernel does not look for equal pages: {file} is 0, not 1"),
        ("2\n", "the kernel does not look for equal pages: {file} is 2, not 1"),
        (None, "{file}: No such file or directory"),
    ],
)
def test_the_machine_merges_where_root_has_turned_it_on(tmp_path: Path, run: str | None, why: str) -> None:
    if run is not None:
        (tmp_path / "run").write_text(run)
    assert why_not_merged(tmp_path) == why.format(file=tmp_path / "run")
