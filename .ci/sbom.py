"""The bill of materials of an installed fleet, as a CycloneDX 1.5 document: `make sbom`.

What the virtual environment holds that fleet needs to run, its extras `celery` and `embedded` included, with versions,
licences and what needs what. Read from the installed packages; nothing is asked outside.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "workerfleet"
EXTRAS = ("celery", "embedded", "eventlet", "sqlalchemy", "pictures")


def main() -> int:
    found: dict[str, Distribution] = {}
    needs: dict[str, list[str]] = {}
    collect(ROOT, EXTRAS, found, needs)
    root = component(found[ROOT])
    digest = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps({name: one.version for name, one in sorted(found.items())}))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{digest}",
        "version": 1,
        "metadata": {"component": {**root, "type": "application"}},
        "components": [component(one) for name, one in sorted(found.items()) if name != ROOT],
        "dependencies": [
            {"ref": purl(found[name]), "dependsOn": sorted(purl(found[one]) for one in below)}
            for name, below in sorted(needs.items())
        ],
    }
    json.dump(document, sys.stdout, indent=2)
    print()
    return 0


def collect(name: str, extras: tuple[str, ...], found: dict[str, Distribution], needs: dict[str, list[str]]) -> None:
    """What a package needs on this machine, and what these need."""
    found.setdefault(name, distribution(name))
    below = needs.setdefault(name, [])
    for requirement in required(found[name], extras):
        other = canonicalize_name(requirement.name)
        try:
            is_new = other not in found
            found.setdefault(other, distribution(other))
        except PackageNotFoundError:
            continue
        if other not in below and other != name:
            below.append(other)
        if is_new or requirement.extras:
            collect(other, tuple(requirement.extras), found, needs)


def required(package: Distribution, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for line in package.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def component(package: Distribution) -> dict[str, Any]:
    facts = package.metadata
    said = facts.get("License-Expression") or facts.get("License") or ""
    licence = said if said and "\n" not in said else next(of_classifiers(package), "")
    name = canonicalize_name(facts["Name"])
    found = {
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": package.version,
        "purl": purl(package),
    }
    return {**found, **({"licenses": [{"license": {"name": licence}}]} if licence else {})}


def of_classifiers(package: Distribution) -> Iterator[str]:
    for line in package.metadata.get_all("Classifier") or ():
        if found := re.match(r"License :: (?:OSI Approved :: )?(.+)", line):
            yield found[1]


def purl(package: Distribution) -> str:
    return f"pkg:pypi/{canonicalize_name(package.metadata['Name'])}@{package.version}"


if __name__ == "__main__":
    raise SystemExit(main())
