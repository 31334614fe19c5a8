"""Who may import whom, and that nothing goes round in a circle."""

from __future__ import annotations

import pytest

from tests.architecture.imports import (
    PACKAGES,
    Import,
    all_imports,
    circles,
    folders,
    home_of,
    module_arrows,
    modules,
    running_imports,
    within,
)
from tests.architecture.layers import LAYERS, POOLS


def refuse(breaches: list[Import], rule: str) -> None:
    assert not breaches, f"{rule}:\n  " + "\n  ".join(map(str, breaches))


def part_of(module: str, folder: str) -> str:
    """The part of a folder that a module lies in: a file or a folder; nothing for the folder's own face."""
    return module.removeprefix(folder).lstrip(".").partition(".")[0]


def parts_of(folder: str) -> set[str]:
    return {part_of(name, folder) for name in modules() if within(name, folder)} - {""}


def rows_of(folder: str) -> dict[str, int]:
    return {part: row for row, parts in enumerate(LAYERS[folder]) for part in parts.split()}


@pytest.mark.parametrize("folder", LAYERS)
def test_every_part_has_its_row(folder: str) -> None:
    assert set(rows_of(folder)) == parts_of(folder)


@pytest.mark.parametrize("folder", LAYERS)
def test_imports_run_downwards(folder: str) -> None:
    rows = rows_of(folder)
    breaches = []
    for one in running_imports():
        if within(one.module, folder) and within(home_of(one.target), folder):
            above, below = part_of(one.module, folder), part_of(home_of(one.target), folder)
            if above and above != below and (not below or rows[above] >= rows[below]):
                breaches.append(one)
    if folder == "fleet":  # the version and nothing else is taken from the package itself
        breaches = [one for one in breaches if one.names != ("__version__",)]

    refuse(breaches, f"in {folder} an import runs upwards, or aside")


def test_no_module_is_part_of_a_circle() -> None:
    assert circles(module_arrows(running_imports())) == []


@pytest.mark.parametrize("folder", folders())
def test_the_parts_of_a_folder_form_no_circle(folder: str) -> None:
    arrows: dict[str, set[str]] = {part: set() for part in parts_of(folder)}
    for module, targets in module_arrows(running_imports()).items():
        if within(module, folder) and (part := part_of(module, folder)):
            inside = {part_of(target, folder) for target in targets if within(target, folder)}
            arrows[part] |= inside - {part, ""}

    assert circles(arrows) == []


def test_pools_know_nothing_of_fleets() -> None:
    refuse(
        [one for one in all_imports() if within(one.module, "pools") and within(one.target, "fleet")], "pools > fleet"
    )


def test_only_the_worker_runs_pools() -> None:
    breaches = [
        one
        for one in running_imports()
        if within(one.module, "fleet")
        and within(one.target, "pools")
        and not within(one.target, *POOLS.get(".".join(one.module.split(".")[:2]), ()))
    ]
    refuse(breaches, "only workers take more than pools.traits")


def test_backends_do_not_know_each_other() -> None:
    kinds = parts_of("fleet.backends") - {"base"}
    breaches = []
    for one in running_imports():
        own = part_of(one.module, "fleet.backends") if within(one.module, "fleet.backends") else ""
        if own and within(one.target, *(f"fleet.backends.{kind}" for kind in kinds - {own})):
            breaches.append(one)
    refuse(breaches, "a backend imports another")


@pytest.mark.parametrize("folder", ["fleet.core.planning", "fleet.core.balance", "fleet.core.simulation.slots"])
def test_what_decides_does_not_see_the_manifest(folder: str) -> None:
    refuse(
        [one for one in running_imports() if within(one.module, folder) and within(one.target, "fleet.core.manifest")],
        "decisions are made on desired and observed alone",
    )


def test_no_module_reaches_into_the_private_names_of_another() -> None:
    breaches = [
        one
        for one in all_imports()
        if within(one.target, *PACKAGES)
        and (any(private(name) for name in one.names) or any(private(part) for part in one.target.split(".")))
    ]
    refuse(breaches, "a private name is imported")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_version"
