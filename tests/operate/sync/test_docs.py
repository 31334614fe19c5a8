"""docs/sync.md tells every field, and its examples hold."""

from __future__ import annotations

import re
from pathlib import Path

from fleet.core.manifest.tree import Source
from fleet.operate.sync.field_table import table
from fleet.operate.sync.source import parse

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "sync.md"


def test_the_table_of_fields_is_that_of_the_models() -> None:
    """To refresh: ``python -m fleet.operate.sync.field_table``, in place of the table at the end of the page."""
    assert PAGE.read_text().endswith(table())


def test_the_sources_that_people_copy_hold() -> None:
    [text] = re.findall(r"```yaml\n(apiVersion.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert parse(Source("docs/sync.md", text), environ={}).name == "shop-prod"
    example = ROOT / "examples" / "06-gitops" / "source.yaml"
    environ = {"DEPLOY_REPOSITORY": "/srv/git/deploy.git"}
    assert parse(Source("source.yaml", example.read_bytes()), environ=environ).name == "gitops"
