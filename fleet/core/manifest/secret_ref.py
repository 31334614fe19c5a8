"""How a field of a manifest names a secret instead of holding one."""

from __future__ import annotations

from pydantic import Field

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.field_types import Name


class SecretRef(Model):
    """The name of a declared secret."""

    secret: Name = Field(description="a name under `spec.secrets`")
