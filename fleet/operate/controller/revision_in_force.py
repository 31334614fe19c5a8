"""The revision in force as the controller works with it: its manifest, and its secrets once they are needed."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.core.expand.specs import secret_variable, secrets_of
from fleet.core.manifest.models import Manifest
from fleet.inputs.facts import secret_values
from fleet.inputs.manifest import from_revision
from fleet.operate.notify.notifier import Receivers
from fleet.operate.notify.sending import receivers_of
from fleet.state.revisions import Revision


class RevisionInForce:
    """One applied revision, read once. ``environ``: the controller's, where an apply put the secrets that it read."""

    def __init__(self, revision: Revision, *, environ: Mapping[str, str]) -> None:
        self.number = revision.number
        self._loaded = from_revision(revision)
        self._environ = environ
        self._secrets: Mapping[str, str] | None = None

    @property
    def manifest(self) -> Manifest:
        return self._loaded.manifest

    @property
    def receivers(self) -> Receivers:
        """Whom it wants to be told of what happens."""
        return receivers_of(self._loaded, self.secrets)

    def secrets(self) -> Mapping[str, str]:
        """Name -> value: as the apply gave them to the controller that it started, else read from their sources now.

        Raises SecretError.
        """
        if self._secrets is None:
            variables = {name: secret_variable(name) for name in secrets_of(self.manifest)}
            given = {name: self._environ[one] for name, one in variables.items() if one in self._environ}
            self._secrets = secret_values(self._loaded, given=given)
        return self._secrets

    def secrets_read(self) -> Mapping[str, str]:
        """Those that were needed so far."""
        return self._secrets or {}
