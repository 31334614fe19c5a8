"""The one door to git: runs its binary without hooks, submodules, prompts or anybody's configuration, within bounds.

Nothing of the repository can make git run a program: the configuration is ours alone, ``core.hooksPath`` leads nowhere,
only the source's own transport is allowed, and files come from the object store (``checkout-index``) without filters.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fleet.errors import FleetError
from fleet.file_access import make_folders
from fleet.operate.sync.remote import Remote
from fleet.operate.sync.tree_rules import LINK, SUBMODULE, Entry

MOST_OUTPUT_BYTES = 64 << 20
_LOOK_SECONDS = 0.05
_SIZE_LOOKS = 10
_ALWAYS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.autocrlf": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "fetch.fsckObjects": "true",
    "transfer.fsckObjects": "true",
    "gc.autoDetach": "false",
    "maintenance.autoDetach": "false",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
    "credential.helper": "",
    "gpg.program": "gpg",
    "gpg.ssh.program": "ssh-keygen",
    "gpg.x509.program": "/bin/false",
    "log.showSignature": "false",
    "advice.detachedHead": "false",
}


class Ended(Exception):
    """We were asked to stop while git ran."""


class GitError(FleetError):
    """git refused, or gave no answer in time. ``status``: git's own exit status, where it ended by itself."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Access:
    """How to get at a remote repository. Files are absolute paths; ``token`` is the value."""

    ssh_key: str = ""
    known_hosts: str = ""
    username: str = "git"
    token: str = ""
    ca_file: str = ""

    def ssh_command(self) -> str:
        """What git runs for ssh: no configuration of anybody's, no question, no unknown host."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15", "ForwardAgent=no"]
        options += ["ServerAliveInterval=15", "ServerAliveCountMax=3", f"UserKnownHostsFile={self.known_hosts}"]
        options += ["GlobalKnownHostsFile=/dev/null", "PermitLocalCommand=no"]
        words = ["ssh", "-F", "/dev/null"]
        if self.ssh_key:
            options.append("IdentitiesOnly=yes")
            words += ["-i", self.ssh_key]
        for option in options:
            words += ["-o", option]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class Keys:
    """Whose signatures count: a file of allowed signers for ssh, and a GnuPG home that holds only the allowed keys."""

    allowed_signers: str = ""
    gpg_home: str = ""


@dataclass(slots=True)
class Repository:
    """A bare repository of ours that holds what was fetched; ``timeout_seconds`` bounds each call."""

    folder: Path
    timeout_seconds: float = 120.0
    most_bytes: int = 256 << 20
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    is_over: Callable[[], bool] = lambda: False

    def prepare(self) -> None:
        """Make it where it is missing, and remove what a killed git left behind."""
        if not (self.folder / "HEAD").exists():
            make_folders(self.folder)
            self._run(
                "init", "--bare", "--quiet", "--template=", "--initial-branch=none", str(self.folder), inside=False
            )
        for left in [*self.folder.glob("*.lock"), *self.folder.glob("refs/**/*.lock")]:
            left.unlink(missing_ok=True)
        self._drop_half_packs()

    def _drop_half_packs(self) -> None:
        for left in self.folder.glob("objects/pack/tmp_*"):
            left.unlink(missing_ok=True)

    # --- the remote

    def remote_refs(self, remote: Remote, access: Access) -> dict[str, str]:
        """Full name -> id of every branch and tag there; ``refs/tags/v1^{}`` for what an annotated tag leads to."""
        said = self._run(
            "ls-remote", "--quiet", "--", remote.url, "refs/heads/*", "refs/tags/*", remote=(remote, access)
        )
        rows = (line.split("\t", 1) for line in said.decode("utf-8", "replace").splitlines())
        return {row[1]: row[0] for row in rows if len(row) == 2}

    def fetch(self, remote: Remote, access: Access, *specs: str) -> None:
        """Get refs (``+refs/heads/main:refs/fleet/head``) with their history, and nothing else."""
        flags = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force")
        try:
            self._run("fetch", *flags, "--", remote.url, *specs, remote=(remote, access), grows=True)
        except BaseException:
            self._drop_half_packs()
            raise

    # --- what is here

    def resolve(self, name: str) -> str:
        """The commit that a name leads to, or nothing."""
        try:
            said = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        except GitError:
            return ""
        return said.decode().strip()

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether ``new`` goes on from ``old``."""
        try:
            self._run("merge-base", "--is-ancestor", old, new)
        except GitError as error:
            if error.status == 1:
                return False
            raise
        return True

    def merged_tree(self, base: str, head: str, *, names: tuple[str, str]) -> str:
        """The tree that a merge of two commits would have. Raises GitError for one in conflict."""
        try:
            said = self._run("merge-tree", "--write-tree", "--name-only", base, head)
        except GitError as error:
            if error.status != 1:
                raise
            hint = f"merge or rebase {names[1]} first"
            raise GitError(f"{names[1]} does not merge into {names[0]} without conflicts", hint=hint) from error
        return said.decode().splitlines()[0]

    def keep(self, name: str, commit: str) -> None:
        """Point a ref of ours at a commit, so that it is never collected as garbage."""
        self._run("update-ref", name, commit)

    def subject(self, commit: str) -> str:
        """The first line of a commit's message, for people."""
        return self._run("log", "-1", "--format=%s", commit).decode("utf-8", "replace").strip()[:200]

    def tree(self, commit: str) -> tuple[Entry, ...]:
        """Every file, link and submodule of a commit, by path."""
        said = self._run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)
        return tuple(_entry(row) for row in said.split(b"\x00") if row)

    def link_targets(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Path -> what it says, of the links among the entries."""
        return {
            entry.path: self.blob(entry.object_id).decode("utf-8", "surrogateescape")
            for entry in entries
            if entry.mode == LINK and entry.size <= 4096
        }

    def blob(self, object_id: str) -> bytes:
        """The bytes of one file."""
        return self._run("cat-file", "blob", object_id)

    def write_tree(self, commit: str, folder: Path) -> None:
        """Write a commit's files below a folder that is there and empty. Check the tree first."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            index = {"GIT_INDEX_FILE": f"{place}/index"}
            self._run("read-tree", commit, more=index)
            self._run("checkout-index", "--all", f"--prefix={folder}/", more={**index, "GIT_WORK_TREE": str(folder)})

    # --- signatures

    def verify_commit(self, commit: str, keys: Keys) -> str:
        """Who signed a commit. Raises GitError where nobody allowed did."""
        return self._verify("verify-commit", commit, keys)

    def verify_tag(self, name: str, keys: Keys) -> str:
        """Who signed an annotated tag. Raises GitError where nobody allowed did."""
        return self._verify("verify-tag", name, keys)

    def _verify(self, verb: str, what: str, keys: Keys) -> str:
        config = {"gpg.ssh.allowedSignersFile": keys.allowed_signers or "/dev/null"}
        more = {"GNUPGHOME": keys.gpg_home or "/nonexistent"}
        said = self._run(verb, "--raw", what, config=config, more=more, both=True).decode("utf-8", "replace")
        return _signer(said)

    # --- running it

    def _run(
        self,
        *words: str,
        inside: bool = True,
        remote: tuple[Remote, Access] | None = None,
        config: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
        grows: bool = False,
        both: bool = False,
    ) -> bytes:
        """What git printed (``both``: its complaints too). Raises GitError."""
        settings, environ = dict(_ALWAYS) | dict(config or {}), self._environment(remote)
        if remote is not None:
            settings |= _transport(*remote)
        environ |= _as_variables(settings) | dict(more or {})
        if inside:
            environ["GIT_DIR"] = str(self.folder)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
            status = self._call(["git", *words], environ, (out, complaints), grows=grows)
            printed, complaint = _read(out), _read(complaints)
        if status != 0:
            raise _failure(words[0], status, complaint, remote)
        return printed + complaint if both else printed

    def _environment(self, remote: tuple[Remote, Access] | None) -> dict[str, str]:
        kept = (
            "PATH",
            "LANG",
            "LC_ALL",
            "TMPDIR",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
        )
        environ = {name: self.environ[name] for name in kept if name in self.environ}
        environ |= {
            "HOME": str(self.folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_ALLOW_PROTOCOL": remote[0].transport if remote is not None else "none",
            "LC_ALL": "C.UTF-8",
        }
        if remote is not None and remote[0].transport == "ssh":
            environ |= {"GIT_SSH_COMMAND": remote[1].ssh_command(), "GIT_SSH_VARIANT": "ssh"}
        return environ

    def _call(
        self, command: list[str], environ: Mapping[str, str], streams: tuple[IO[bytes], IO[bytes]], *, grows: bool
    ) -> int:
        """Its exit status. Ended with everything it started when it takes too long or too much room."""
        out, complaints = streams
        try:
            process = subprocess.Popen(
                command,
                cwd="/",
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=complaints,
                start_new_session=True,
            )
        except OSError as error:
            raise GitError(f"cannot run git: {error.strerror}", hint="install git, or correct the PATH") from error
        began = time.monotonic()
        looks = 0
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_LOOK_SECONDS)
                looks += 1
                if self.is_over():
                    raise Ended
                if time.monotonic() - began > self.timeout_seconds:
                    hint = "raise spec.git.timeout if the repository is that slow"
                    raise GitError(f"git {command[1]} took longer than {self.timeout_seconds:g} s", hint=hint)
                if os.fstat(out.fileno()).st_size > MOST_OUTPUT_BYTES:
                    raise GitError(f"git {command[1]} printed more than {MOST_OUTPUT_BYTES:,} bytes")
                if grows and looks % _SIZE_LOOKS == 0:
                    self.check_size()
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def check_size(self) -> None:
        """Raise GitError where the repository is larger than it may be."""
        size = folder_bytes(self.folder)
        if size > self.most_bytes:
            hint = "keep large files out of the repository, or raise spec.git.maxSize"
            raise GitError(f"the repository holds {size:,} bytes, and maxSize allows {self.most_bytes:,}", hint=hint)


def folder_bytes(folder: Path) -> int:
    """What the files below a folder hold; those that go away meanwhile are left out."""
    size = 0
    for place, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def import_keys(file: Path, home: Path, *, timeout_seconds: float = 60.0) -> None:
    """Fill a GnuPG home with the public keys of a file, and no others. Raises GitError."""
    make_folders(home)
    command = ["gpg", "--batch", "--quiet", "--no-autostart", "--status-fd", "1", "--homedir", str(home)]
    command += ["--import", "--", str(file)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitError(f"cannot run gpg: {error}", hint="install gnupg, or use keys of ssh") from error
    # Its exit status also complains that no agent runs; none is needed for public keys.
    said = done.stdout.decode("utf-8", "replace")
    if "[GNUPG:] IMPORT_OK " not in said or "[GNUPG:] IMPORT_PROBLEM" in said:
        raise GitError(f"gpg cannot read the keys in {file}: {_last_line(done.stderr)}")


def _transport(remote: Remote, access: Access) -> dict[str, str]:
    if remote.transport not in {"https", "http"}:
        return {}
    settings = {"http.sslCAInfo": access.ca_file} if access.ca_file else {}
    if access.token:
        word = base64.b64encode(f"{access.username}:{access.token}".encode()).decode()
        settings["http.extraHeader"] = f"Authorization: Basic {word}"
    return settings


def _as_variables(settings: Mapping[str, str]) -> dict[str, str]:
    """Configuration through the environment: other users cannot see it, as they could see arguments."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _entry(row: bytes) -> Entry:
    facts, _, path = row.partition(b"\t")
    mode, _kind, object_id, size = facts.decode().split()
    length = 0 if mode == SUBMODULE else int(size)
    return Entry(mode, object_id, length, path.decode("utf-8", "surrogateescape"))


def _read(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read(MOST_OUTPUT_BYTES)


def _failure(verb: str, status: int, complaint: bytes, remote: tuple[Remote, Access] | None) -> GitError:
    where = f" {remote[0].url}" if remote is not None else ""
    said = _last_line(complaint)
    return GitError(f"git {verb}{where} failed: {said or f'exit {status}'}", status=status)


def _last_line(complaint: bytes) -> str:
    lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    return telling[-1].removeprefix("fatal: ").removeprefix("error: ")[:300] if telling else ""


def _signer(said: str) -> str:
    """Who made a good signature, as git or gpg name them."""
    for line in said.splitlines():
        if line.startswith('Good "git" signature for '):
            return line.removeprefix('Good "git" signature for ').split(" with ")[0]
        if line.startswith("[GNUPG:] GOODSIG "):
            return line.removeprefix("[GNUPG:] GOODSIG ").partition(" ")[2]
    raise GitError("git names no good signature")
