"""Accounts that a manifest names are looked up, and refused with their place where they cannot be used."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from fleet.core.manifest.parse import Source
from fleet.core.spec import FLEETS_ACCOUNT, AccountSpec
from fleet.errors import Refused
from fleet.inputs.accounts import Accounts, account_problems, accounts_of, check_access, root_warning
from fleet.inputs.manifest import LoadedManifest, from_sources
from tests.accounts import NAME, gid, needs_second_account, open_to_all, uid

OWN_USER, OWN_GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
NOBODY = pwd.getpwnam(NAME)


def manifest(*, spec: str = "", group: str = "", command: str = "[sleep, '9']") -> LoadedManifest:
    text = (
        "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\nspec:\n"
        f"{spec}  groups:\n    clock: {{command: {command}, replicas: 1{group}}}\n"
    )
    return from_sources([Source("fleet.yaml", text.encode())], environ={})


@pytest.mark.parametrize("name", [OWN_USER, str(os.geteuid())])
def test_the_account_of_fleet_may_be_named_and_changes_nothing(name: str) -> None:
    loaded = manifest(
        spec=f"  user: '{name}'\n  group: '{OWN_GROUP}'\n", group=f", user: '{name}', group: '{os.getegid()}'"
    )
    assert accounts_of(loaded) == Accounts({}, FLEETS_ACCOUNT)


def test_no_account_needs_to_be_named() -> None:
    assert accounts_of(manifest()) == Accounts({}, FLEETS_ACCOUNT)


@needs_second_account
@pytest.mark.parametrize("user", ["", f"  user: {NAME}\n"])
def test_an_ordinary_user_may_run_workers_on_the_embedded_broker(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", uid)
    monkeypatch.setattr(os, "getegid", gid)
    text = (
        "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\nspec:\n"
        f"  app: shop:app\n  broker: embedded\n{user}  groups:\n    web: {{replicas: 1, pool: solo, queues: [web]}}\n"
    )
    loaded = from_sources([Source("fleet.yaml", text.encode())], environ={})
    assert accounts_of(loaded) == Accounts({}, FLEETS_ACCOUNT)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"spec": "  user: no-such-one\n"}, "fleet.yaml:5:3  spec.user"),
        ({"spec": "  group: no-such-one\n"}, "fleet.yaml:5:3  spec.group"),
        ({"group": ", user: no-such-one"}, "fleet.yaml:6:49  spec.groups.clock.user"),
        ({"group": ", group: no-such-one"}, "fleet.yaml:6:49  spec.groups.clock.group"),
        ({"spec": "  defaults: {user: no-such-one}\n"}, "fleet.yaml:5:14  spec.groups.clock.user"),
    ],
)
def test_an_account_that_does_not_exist_is_refused_with_its_place(given: dict[str, str], where: str) -> None:
    with pytest.raises(Refused, match=r"there is no (account|group) 'no-such-one' on this machine") as refused:
        accounts_of(manifest(**given))
    assert refused.value.message.startswith(where)
    assert "make it (`" in refused.value.hint
    problem = account_problems(manifest(**given))[0]
    assert str(problem).startswith(where)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may start replicas under another account")
@pytest.mark.parametrize("given", [{"spec": f"  user: {NAME}\n"}, {"group": f", user: {NAME}"}])
def test_only_root_starts_replicas_under_another_account(given: dict[str, str]) -> None:
    refuses_without_root(given)


@needs_second_account
@pytest.mark.parametrize("given", [{"spec": "  user: root\n"}, {"group": ", user: root"}])
def test_without_root_another_account_is_refused(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", uid)
    monkeypatch.setattr(os, "getegid", gid)
    refuses_without_root(given)


def refuses_without_root(given: dict[str, str]) -> None:
    with pytest.raises(Refused, match="only root can change that") as refused:
        accounts_of(manifest(**given))
    assert "run fleet as root" in refused.value.hint


@needs_second_account
@pytest.mark.parametrize(
    ("given", "account"),
    [
        ({"spec": f"  user: {NAME}\n"}, AccountSpec(NAME, NOBODY.pw_uid, NOBODY.pw_gid)),
        ({"spec": f"  user: '{NOBODY.pw_uid}'\n"}, AccountSpec(NAME, NOBODY.pw_uid, NOBODY.pw_gid)),
        (
            {"spec": f"  user: {NAME}\n  group: daemon\n"},
            AccountSpec(NAME, NOBODY.pw_uid, grp.getgrnam("daemon").gr_gid),
        ),
        ({"spec": "  user: daemon\n", "group": f", user: {NAME}"}, AccountSpec(NAME, NOBODY.pw_uid, NOBODY.pw_gid)),
        ({"group": ", user: '61999', group: '61998'"}, AccountSpec("61999", 61999, 61998)),
        ({"spec": f"  defaults: {{user: {NAME}}}\n"}, AccountSpec(NAME, NOBODY.pw_uid, NOBODY.pw_gid)),
    ],
)
def test_root_gives_replicas_to_an_account(given: dict[str, str], account: AccountSpec) -> None:
    assert accounts_of(manifest(**given)).groups == {"clock": account}


@needs_second_account
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"group": ", user: '61999'"}, "its group is not known"),
        ({"group": ", group: daemon"}, "another group than root's"),
    ],
)
def test_half_an_account_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(Refused, match=message):
        accounts_of(manifest(**given))


@needs_second_account
@pytest.mark.parametrize("group", [", app: 'm:a', user: nobody", ", app: 'm:a'"])
def test_an_embedded_broker_ties_accounts_together(group: str) -> None:
    text = (
        "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\nspec:\n"
        f"  broker: embedded\n  user: daemon\n  groups:\n    web: {{replicas: 1{group}}}\n"
    )
    loaded = from_sources([Source("fleet.yaml", text.encode())], environ={})
    if "user" not in group:
        found = accounts_of(loaded)
        assert found.broker == found.groups["web"]
        assert found.broker.user == "daemon"
        return
    with pytest.raises(Refused, match="takes its tasks from the embedded broker, which runs as 'daemon'"):
        accounts_of(loaded)


@needs_second_account
def test_what_runs_as_root_is_said_once_and_what_does_not_is_not() -> None:
    assert "1 group would run as root (clock)" in root_warning(manifest())
    assert root_warning(manifest(spec=f"  user: {NAME}\n")) == ""
    assert root_warning(manifest(spec="  user: no-such-one\n")) == "", "that is said already"


@needs_second_account
def test_an_account_must_be_able_to_enter_what_its_replicas_use(tmp_path: Path) -> None:
    loaded = manifest(spec=f"  user: {NAME}\n")
    accounts = accounts_of(loaded)
    workdir = open_to_all(tmp_path) / "work"
    workdir.mkdir(mode=0o755)
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)

    def check(*, workdir: Path = workdir, root: Path = tmp_path / "home" / "shop") -> None:
        python = "/usr/bin/python3"
        check_access(accounts, loaded.manifest, workdir=str(workdir), python=python, real_paths={}, root=root)

    check()
    check(root=home / "shop")  # FLEET_HOME itself is opened as far as it has to be
    with pytest.raises(Refused, match=f"{NAME} cannot use the working folder"):
        check(workdir=home)
    with pytest.raises(Refused, match=f"{NAME} cannot pass through {home}"):
        check(root=home / "inner" / "shop")


@needs_second_account
def test_a_groups_own_folder_must_let_its_account_in(tmp_path: Path) -> None:
    closed = open_to_all(tmp_path) / "closed"
    closed.mkdir(mode=0o700)
    loaded = manifest(group=f", user: {NAME}, release: {{workdir: /link}}")
    with pytest.raises(Refused, match=f"{NAME} cannot use the working folder, {closed}"):
        check_access(
            accounts_of(loaded),
            loaded.manifest,
            workdir="/",
            python="/usr/bin/python3",
            real_paths={"/link": str(closed)},
            root=tmp_path / "home" / "shop",
        )


@needs_second_account
@pytest.mark.parametrize("more", ["job: true", "restart: {policy: onFailure}", "stop: {group: true}"])
def test_what_fleet_puts_before_a_program_must_be_the_accounts_to_run(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_to_all(tmp_path) / "python"
    closed.write_text("")
    closed.chmod(0o600)
    monkeypatch.setattr("sys.executable", str(closed))
    loaded, root = manifest(group=f", user: {NAME}, {more}"), tmp_path / "home" / "shop"
    with pytest.raises(Refused, match=f"{NAME} cannot use fleet's interpreter"):
        check_access(
            accounts_of(loaded), loaded.manifest, workdir="/", python="/usr/bin/python3", real_paths={}, root=root
        )
