"""A source with the folder its own file is in, and what it takes to get at its repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import FleetError
from fleet.inputs import secrets
from fleet.operate.sync import git
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.reconcile import environment


@dataclass(frozen=True, slots=True)
class Access:
    """What it takes to get at the repository and to check signatures; files are absolute."""

    remote: git.Access
    allowed_signers: str = ""
    gpg_keys: str = ""


@dataclass(frozen=True, slots=True)
class Definition:
    """A source and the folder from which relative paths in it start."""

    source: FleetSource
    folder: Path

    def access(self) -> Access:
        """What it takes to get at the repository, secrets read now. Raises FleetError."""
        spec = self.source.spec.git
        auth, verify = spec.auth, spec.verify
        remote = git.Access(
            ssh_key=self._file(auth.ssh_key.file) if auth.ssh_key else "",
            known_hosts=self._file(auth.known_hosts.file) if auth.known_hosts else "",
            username=auth.username or "git",
            token=self.secret(auth.token.secret) if auth.token is not None else "",
            ca_file=self._file(auth.ca_file.file) if auth.ca_file else "",
        )
        signers = self._file(verify.ssh.allowed_signers) if verify is not None and verify.ssh is not None else ""
        keys = self._file(verify.gpg.keys) if verify is not None and verify.gpg is not None else ""
        return Access(remote, signers, keys)

    def secret(self, name: str) -> str:
        """The value of a declared secret. Raises FleetError."""
        declared = self.source.spec.secrets
        return secrets.resolve(declared, folder=self.folder, environ=environment(), only=[name])[name]

    def _file(self, path: str) -> str:
        place = os.path.normpath(self.folder / os.path.expanduser(path))
        if not os.path.isfile(place):
            raise FleetError(f"there is no file {place}", hint="see auth and verify of the source")
        return place
