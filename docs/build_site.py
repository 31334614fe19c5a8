"""Builds the documentation as a site that needs no network: ``python -m docs.build_site``, which is ``make docs``.

The pages keep their places and their links, so that they read the same on a code host and on the site. A link to a
folder leads to its README, else to a page that is made here and shows the folder's files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docs.pages import ROOT, links, pages

BUILD = ROOT / "build" / "docs"
FOLDER_PAGE = "folder.md"
"""What a made page is called; mkdocs.yml keeps this name out of the contents."""

MOST_SHOWN_BYTES = 16_000
NOT_SHOWN = {"__pycache__"}
WORKER_FOR_FILES = ROOT / "docs" / "site" / "iframe-worker.js"
"""What the search needs in pages that are opened as files; from the theme it would be a script from elsewhere."""


def main() -> int:
    """Exit code: that of mkdocs; 1 when it is not installed."""
    try:
        import mkdocs  # noqa: F401
    except ImportError:
        print("mkdocs is not installed: pip install 'workerfleet[docs]'", file=sys.stderr)
        return 1
    code = build(BUILD)
    if code == 0:
        print(f"the site is in {(BUILD / 'site').relative_to(ROOT)}: open index.html there")
    return code


def build(folder: Path) -> int:
    """The pages in ``folder``/pages, the site in ``folder``/site; the exit code of mkdocs."""
    stage(folder / "pages")
    return make(folder)


def make(folder: Path, **more: str) -> int:
    """The site of pages that are there, with ``more`` of mkdocs' settings as YAML; every warning is an error."""
    given = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "pages", "site_dir": "site", **more}
    (folder / "mkdocs.yml").write_text("".join(f"{name}: {value}\n" for name, value in given.items()))
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file", str(folder / "mkdocs.yml")],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    ).returncode


def stage(folder: Path) -> None:
    """Put the pages and all that they link to into ``folder``, which is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages():
        text = (ROOT / page).read_text()
        put(folder / page, with_pages_for_folders(page, text))
        for link in links(page, text):
            if link.target is not None:
                stage_target(folder, link.target)
    (folder / "assets").mkdir()
    shutil.copy(WORKER_FOR_FILES, folder / "assets")


def with_pages_for_folders(page: Path, text: str) -> str:
    """The text of a page with every link to a folder as a link to a page."""
    for link in links(page, text):
        if link.target is not None and (ROOT / link.target).is_dir():
            written = re.escape(link.text)
            text = re.sub(rf"(?<=\]\(){written}(?=\))", f"{link.text.rstrip('/')}/{page_of(link.target)}", text)
    return text


def page_of(folder: Path) -> str:
    return "README.md" if (ROOT / folder / "README.md").exists() else FOLDER_PAGE


def stage_target(folder: Path, target: Path) -> None:
    """What a page links to and is no page itself."""
    source = ROOT / target
    if source.is_dir() and page_of(target) == FOLDER_PAGE:
        put(folder / target / FOLDER_PAGE, folder_page(target))
    elif source.is_file() and source.suffix != ".md":
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)


def folder_page(folder: Path) -> str:
    """A page that shows the text files of a folder, the large ones by name only."""
    found = sorted((ROOT / folder).rglob("*"))
    files = [path for path in found if path.is_file() and not NOT_SHOWN & set(path.parts)]
    parts = [f"## {path.relative_to(ROOT / folder)}\n\n{shown(path)}\n" for path in files]
    return "\n".join([f"# {folder}\n", *parts])


def shown(path: Path) -> str:
    if path.stat().st_size > MOST_SHOWN_BYTES:
        return f"{path.stat().st_size} bytes, not shown here."
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return "Not text."
    language = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".json": "json", ".sh": "sh"}.get(path.suffix, "text")
    return f"~~~~~~{language}\n{text.rstrip()}\n~~~~~~"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
