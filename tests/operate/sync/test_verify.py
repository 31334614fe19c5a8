"""Signatures, made and checked by the real ssh-keygen and gpg."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fleet.operate.sync.state import Fetched
from fleet.operate.sync.watcher import Watcher
from tests.operate.sync.worlds import Place, Upstream, manifest

SSH = "    verify: {{mode: {mode}, ssh: {{allowedSigners: allowed_signers}}}}\n"
GPG = "    verify: {mode: HEAD, gpg: {keys: keys.asc}}\n"


def run(*words: str, **environ: str) -> str:
    done = subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ssh_key(folder: Path, name: str) -> Path:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name))
    return folder / name


def signs_with(upstream: Upstream, key: Path) -> None:
    upstream.git("config", "gpg.format", "ssh")
    upstream.git("config", "user.signingKey", str(key))


@pytest.fixture
def ana(place: Place) -> Path:
    """Ana's key, which is allowed."""
    key = ssh_key(place.root, "ana")
    public = key.with_suffix(".pub").read_text()
    (place.root / "allowed_signers").write_text(f"ana@example.com {public}")
    return key


def signed(upstream: Upstream, replicas: int, *flags: str) -> str:
    upstream.write("fleet.yaml", manifest(replicas))
    commit = upstream.commit("signed", *flags)
    upstream.push()
    return commit


def reason(fetched: Fetched) -> str:
    return next((one.reason for one in fetched.conditions.all() if one.state == "False"), "")


def test_a_commit_signed_by_an_allowed_key_is_verified(place: Place, upstream: Upstream, ana: Path) -> None:
    signs_with(upstream, ana)
    commit = signed(upstream, 2, "-S")
    stages: list[tuple[str, str]] = []
    fetched, reconciled = place.look(
        git=SSH.format(mode="HEAD"), watcher=Watcher(lambda loop, what: stages.append((loop, what)))
    )
    assert (fetched.signer, reconciled.applied) == ("ana@example.com", commit)
    assert stages.index(("repository", f"verifying {commit[:12]}")) == 1, "between fetching and reading"


@pytest.mark.parametrize("how", ["unsigned", "another key", "tampered"])
def test_any_other_commit_is_refused_and_the_fleet_stays(place: Place, upstream: Upstream, ana: Path, how: str) -> None:
    signs_with(upstream, ana)
    good = signed(upstream, 2, "-S")
    place.look(git=SSH.format(mode="HEAD"))
    if how == "another key":
        signs_with(upstream, ssh_key(place.root, "eve"))
    signed(upstream, 5, *([] if how == "unsigned" else ["-S"]))
    if how == "tampered":
        raw = upstream.git("cat-file", "commit", "HEAD").replace("\n\nsigned", "\n\nsigned, they say") + "\n"
        (place.root / "raw").write_text(raw)
        forged = upstream.git("hash-object", "-t", "commit", "-w", str(place.root / "raw"))
        upstream.git("reset", "-q", "--hard", forged)
        upstream.push("--force")
    fetched, reconciled = place.look(git=SSH.format(mode="HEAD"))
    assert reason(fetched) == "NotSigned"
    assert (fetched.good, reconciled.applied, len(place.running())) == (good, good, 2)
    assert fetched.accepted == good


def test_a_good_commit_on_top_of_one_that_was_refused_is_taken(place: Place, upstream: Upstream, ana: Path) -> None:
    signs_with(upstream, ana)
    signed(upstream, 2, "-S")
    place.look(git=SSH.format(mode="HEAD"))
    signed(upstream, 5)
    place.look(git=SSH.format(mode="HEAD"))
    commit = signed(upstream, 3, "-S")
    assert place.look(git=SSH.format(mode="HEAD"))[1].applied == commit


@pytest.mark.parametrize(
    ("mode", "commit_flags", "tag_flags", "is_taken"),
    [
        ("Tag", [], ["-s"], True),
        ("Tag", ["-S"], ["-a"], False),
        ("Tag", ["-S"], [], False),
        ("TagAndHEAD", ["-S"], ["-s"], True),
        ("TagAndHEAD", [], ["-s"], False),
        ("HEAD", ["-S"], [], True),
    ],
)
def test_tags_are_verified_as_the_mode_asks(
    place: Place,
    upstream: Upstream,
    ana: Path,
    mode: str,
    commit_flags: list[str],
    tag_flags: list[str],
    is_taken: bool,
) -> None:
    signs_with(upstream, ana)
    commit = signed(upstream, 2, *commit_flags)
    upstream.git("tag", *tag_flags, *(["-m", "one"] if tag_flags else []), "v1.0.0")
    upstream.git("push", "-q", "origin", "v1.0.0")
    fetched, _ = place.look(ref='semver: "*"', git=SSH.format(mode=mode))
    assert fetched.good == (commit if is_taken else "")
    assert reason(fetched) == ("" if is_taken else "NotSigned")


def test_no_key_file_means_that_nothing_is_trusted(place: Place, upstream: Upstream, ana: Path) -> None:
    signs_with(upstream, ana)
    signed(upstream, 2, "-S")
    (place.root / "allowed_signers").unlink()
    fetched, _ = place.look(git=SSH.format(mode="HEAD"))
    assert fetched.good == ""
    assert not place.running()


# --- OpenPGP


@pytest.fixture
def gpg_home(short_tmp: Path) -> Path:
    """A GnuPG home with two keys: of ana, which is allowed, and of eve."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    home = short_tmp / "g"
    home.mkdir(mode=0o700)
    for name in ("ana", "eve"):
        words = ("--batch", "--passphrase", "", "--quick-gen-key", f"{name} <{name}@example.com>", "ed25519", "sign")
        run("gpg", "--homedir", str(home), "--quiet", *words)
    return home


@pytest.mark.parametrize(("who", "is_taken"), [("ana", True), ("eve", False), ("", False)])
def test_openpgp_signatures_count_when_their_key_is_in_the_file(
    place: Place, upstream: Upstream, gpg_home: Path, who: str, is_taken: bool
) -> None:
    keys = run("gpg", "--homedir", str(gpg_home), "--armor", "--export", "ana@example.com")
    (place.root / "keys.asc").write_text(keys)
    upstream.environ = {"GNUPGHOME": str(gpg_home)}
    try:
        commit = signed(upstream, 2, *([f"-S{who}@example.com"] if who else []))
        fetched, _ = place.look(git=GPG)
    finally:
        run("gpgconf", "--homedir", str(gpg_home), "--kill", "all")
    assert fetched.good == (commit if is_taken else "")
    assert fetched.signer == ("ana <ana@example.com>" if is_taken else "")


def test_an_ssh_signature_is_none_where_only_openpgp_keys_are_allowed(
    place: Place, upstream: Upstream, ana: Path, gpg_home: Path
) -> None:
    keys = run("gpg", "--homedir", str(gpg_home), "--armor", "--export", "ana@example.com")
    run("gpgconf", "--homedir", str(gpg_home), "--kill", "all")
    (place.root / "keys.asc").write_text(keys)
    signs_with(upstream, ana)
    signed(upstream, 2, "-S")
    assert reason(place.look(git=GPG)[0]) == "NotSigned"
