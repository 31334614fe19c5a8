"""A manifest that names another account than fleet's is not carried out."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from fleet.core.manifest.parse import Source, parse
from fleet.errors import Refused
from fleet.inputs.accounts import check_accounts

OWN_USER, OWN_GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


def check(*, spec: str = "", group: str = "") -> None:
    text = (
        "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\nspec:\n"
        f"{spec}  groups:\n    clock: {{command: [sleep, '9'], replicas: 1{group}}}\n"
    )
    check_accounts(parse([Source("fleet.yaml", text)], environ={}).manifest)


@pytest.mark.parametrize("name", [OWN_USER, str(os.geteuid())])
def test_the_account_of_fleet_may_be_named(name: str) -> None:
    check(spec=f"  user: '{name}'\n  group: '{OWN_GROUP}'\n", group=f", user: '{name}', group: '{os.getegid()}'")


def test_no_account_needs_to_be_named() -> None:
    check()


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"spec": "  user: someone-else\n"}, "spec.user"),
        ({"spec": "  group: someone-else\n"}, "spec.group"),
        ({"group": ", user: someone-else"}, "spec.groups.clock.user"),
        ({"group": ", group: someone-else"}, "spec.groups.clock.group"),
    ],
)
def test_another_account_is_refused_with_its_place(given: dict[str, str], where: str) -> None:
    with pytest.raises(Refused, match=where) as refused:
        check(**given)
    assert OWN_USER in refused.value.message or OWN_GROUP in refused.value.message
    assert "run fleet as" in refused.value.hint
