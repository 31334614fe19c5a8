"""What may be shown of what a fleet knows: PURE. Passwords in URLs and values of variables are taken out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.core.text.mask import MASK, looks_secret, masked_text

_VARIABLES = frozenset({"env"})
"""Keys of a manifest whose values are never shown: what is in a variable is the app's own business."""


def shown(value: Any) -> Any:
    """A JSON document with every URL in it masked, and without halves of characters, which no answer can hold."""
    if isinstance(value, str):
        whole = value if value.isascii() else value.encode(errors="replace").decode()
        return masked_text(whole) if "://" in whole else whole
    if isinstance(value, dict):
        return {shown(key): shown(one) for key, one in value.items()}
    return [shown(one) for one in value] if isinstance(value, list | tuple) else value


def shown_json(document: Any) -> str:
    """What is shown of a document, as JSON. That there is nothing to take out is seen faster in the text."""
    text = json.dumps(document)
    return text if "://" not in text and "\\ud" not in text else json.dumps(shown(document))


def leaves(manifest: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, value) of everything in a manifest, as the file has it: not to be shown before :func:`difference`."""
    if isinstance(manifest, Mapping) and manifest:
        for key, value in manifest.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, manifest if isinstance(manifest, str) else json.dumps(manifest, ensure_ascii=False)


def difference(before: Any, after: Any) -> list[dict[str, str | None]]:
    """What differs between two manifests: path, was, is (None: not there). Changed values that are hidden say so."""
    old, new = dict(leaves(before)), dict(leaves(after))
    paths = [*new, *(path for path in old if path not in new)]
    return [
        {"path": path, "was": _value(path, old.get(path)), "is": _value(path, new.get(path))}
        for path in paths
        if old.get(path) != new.get(path)
    ]


def _value(path: str, value: str | None) -> str | None:
    if value is None:
        return None
    *above, name = path.split(".")
    if _VARIABLES & set(above) or looks_secret(name):
        return MASK
    text: str = shown(value)
    return text
