"""The table of fields in docs/sync.md, made from the models: ``python -m fleet.operate.sync.field_table``."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from fleet.core.manifest.field_paths import as_model, model_in
from fleet.operate.sync.models import Spec, Window

HEAD = "| field | |\n|---|---|\n"


def table() -> str:
    """One row per field below ``spec``, in the order of the models."""
    return HEAD + "".join(f"| `{path}` | {text} |\n" for path, text in _rows(Spec, ""))


def _rows(model: type[BaseModel], above: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        path = f"{above}{info.alias or name}"
        below = as_model(model_in(info.annotation))
        yield path, f"{info.description}."
        if below is not None:
            yield from _rows(below, f"{path}.")
        elif name == "windows":
            yield from _rows(Window, f"{path}.NAME.")


if __name__ == "__main__":
    print(table(), end="")
