"""The models behind the key paths of a manifest."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from fleet.core.manifest.models import Manifest, field_named
from fleet.core.manifest.tree import Path


def aliases(model: type[BaseModel]) -> list[str]:
    """The fields of a model as they are written."""
    return [info.alias or name for name, info in model.model_fields.items()]


def model_at(path: Path) -> type[BaseModel] | None:
    """The model that tells what stands at a key path; None in maps whose keys people choose."""
    annotation: Any = Manifest
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            info = field_named(annotation, str(part))
            annotation = info.annotation if info else None
        elif (values := _values_of(annotation)) is not None:
            annotation = values
        else:
            return None
        annotation = model_in(annotation, otherwise=annotation)
    return as_model(annotation)


def as_model(annotation: Any) -> type[BaseModel] | None:
    """The annotation when it is a model."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def model_in(annotation: Any, otherwise: Any = None) -> Any:
    """The model among the alternatives of an annotation, else its map, else ``otherwise``."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return annotation if issubclass(annotation, BaseModel) else otherwise
    if origin is Annotated:
        return model_in(get_args(annotation)[0], otherwise)
    if origin in (Union, types.UnionType):
        found = [model_in(part) for part in get_args(annotation)]
        maps = [part for part in get_args(annotation) if _values_of(part) is not None]
        return next((model for model in found if model), maps[0] if maps else otherwise)
    return otherwise


def _values_of(annotation: Any) -> Any:
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    return None
