"""What every model of a manifest has in common."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """Strict, closed and frozen: an unknown key is a mistake, and a value never changes after parsing.

    Modules of models have their annotations evaluated (no ``from __future__ import annotations``): pydantic would
    compile the text of each of 400, which is a quarter of making the classes.
    """

    # pydantic compiles a validator for each model with all that is below it, which takes most of the time of a short
    # command. Deferred, only the model is compiled that is given a document: the whole manifest, once.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,
    )

    @classmethod
    def empty(cls) -> Self:
        """One in which nothing is written: every field has its default. ``cls()`` would compile a validator first."""
        if cls not in _EMPTY:
            _EMPTY[cls] = cls.model_construct()
        found: Self = _EMPTY[cls]
        return found

    def written(self) -> set[str]:
        """The fields that are written and not null, by their names in a manifest."""
        fields = type(self).model_fields
        return {fields[name].alias or name for name in self.model_fields_set if getattr(self, name) is not None}


_EMPTY: dict[type[Model], Any] = {}
"""Made once each, as none can change."""
