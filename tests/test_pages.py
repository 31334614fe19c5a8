"""The documentation: every page is on the site, every link leads somewhere, the site needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import build_site
from docs.pages import ROOT, Link, anchors, links, pages

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def named(nav: Any) -> Iterator[str]:
    """The pages of a part of the contents."""
    if isinstance(nav, str):
        yield nav
    else:
        for below in nav.values() if isinstance(nav, dict) else nav:
            yield from named(below)


def problem(link: Link) -> str:
    """What is wrong with a link; empty when it leads somewhere."""
    if link.target is None:
        return "is outside of the repository"
    there = ROOT / link.target
    if not there.exists():
        return "is not there"
    if link.anchor and there.suffix == ".md" and link.anchor not in anchors(there.read_text()):
        return "has no such heading"
    return ""


def test_the_contents_name_every_page_once() -> None:
    contents = list(named(CONFIG["nav"]))
    assert sorted(contents) == sorted(map(str, pages()))


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_leads_somewhere(page: Path) -> None:
    found = [(link, problem(link)) for link in links(page, (ROOT / page).read_text())]
    assert [f"{page}:{link.line}: {link.text} {wrong}" for link, wrong in found if wrong] == []


def test_the_pages_do_link_to_each_other() -> None:
    found = [link for page in pages() for link in links(page, (ROOT / page).read_text())]
    assert len(found) > 100
    assert any(link.anchor for link in found)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("[a](nowhere.md)", "is not there"),
        ("![a](nowhere.svg)", "is not there"),
        ("[a](cli.md#nothing-of-it)", "has no such heading"),
        ("[a](#nothing-of-it)", "has no such heading"),
        ("[a](../../elsewhere.md)", "is outside of the repository"),
        ("[a](cli.md#exit-codes) [b](../README.md) [c](../examples) [d](architecture.svg)", ""),
        ("`[a](nowhere.md)`", ""),
        ("```\n[a](nowhere.md)\n```", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_found(written: str, wrong: str) -> None:
    page = Path("docs/balance.md")
    assert {problem(link) for link in links(page, written)} | {""} == {wrong, ""}


def test_anchors_are_those_of_code_hosts() -> None:
    text = (
        '# One & two\n## `spec.metrics`\n## A [link](b.md)!\n```\n# no heading\n```\n## Same\n## Same\n<a id="own"></a>'
    )
    assert anchors(text) == {"one--two", "specmetrics", "a-link", "same", "same-1", "own"}


def test_a_link_to_a_folder_leads_to_a_page(tmp_path: Path) -> None:
    build_site.stage(tmp_path)
    for page in pages():
        for link in links(page, (tmp_path / page).read_text()):
            assert link.target is not None
            assert (tmp_path / link.target).is_file(), f"{page}: {link.text}"
    made = (tmp_path / "examples/05-take-over/heroku-app/folder.md").read_text()
    assert "## Procfile" in made
    assert (ROOT / "examples/05-take-over/heroku-app/Procfile").read_text().rstrip() in made


# --- the site itself, where mkdocs is installed


class Loaded(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {"script": "src", "img": "src", "iframe": "src", "link": "href"}.get(tag)
        self.found += [value or "" for name, value in attrs if name == wanted]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site built as `make docs` does, in a folder of its own."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    assert build_site.build(folder) == 0
    return folder / "site"


def test_the_site_has_every_page(site: Path) -> None:
    for page in pages():
        made = page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html")
        assert (site / made).is_file(), page
    assert "<svg" in (site / "docs" / "architecture.svg").read_text()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        parser = Loaded()
        parser.feed(page.read_text())
        assert parser.found
        assert [each for each in parser.found if re.match(r"(https?:)?//", each)] == [], page


def test_the_search_finds_pages_in_a_folder_without_a_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert all(f'"{page.with_suffix(".html")}"' in index for page in pages() if page.name != "README.md")
    assert "assets/iframe-worker.js" in (site / "index.html").read_text()
    assert "window.Worker" in (site / "assets" / "iframe-worker.js").read_text()


@pytest.mark.parametrize(("link", "code"), [("nowhere.md", 1), ("#nowhere", 1), ("#page", 0)])
def test_a_dead_link_fails_the_build(tmp_path: Path, link: str, code: int) -> None:
    pytest.importorskip("mkdocs")
    build_site.put(tmp_path / "pages" / "page.md", f"# Page\n\n[link]({link})\n")
    assert build_site.make(tmp_path, nav="[page.md]", extra="{}", plugins="[search]") == code
