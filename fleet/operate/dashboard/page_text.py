"""The HTML of pages: one frame that says what the page is about; its script fills in all else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from string import Template
from types import MappingProxyType

TABS = MappingProxyType(
    {
        "overview": "Overview",
        "tasks": "Tasks",
        "queues": "Queues",
        "logs": "Logs",
        "events": "Events",
        "history": "History",
        "rollout": "Rollout",
        "explain": "Explain",
    }
)
STATIC = MappingProxyType({".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"})


def page(
    name: str,
    title: str,
    *,
    fleet: str = "",
    subject: str = "",
    person: str = "",
    mark: str = "",
    actions: Sequence[str] = (),
    can_leave: bool = False,
) -> str:
    """A whole page. name: of its script.  mark: see Access.page_mark.  can_leave: the person may log out."""
    values = {
        "title": title,
        "page": name,
        "fleet": fleet,
        "subject": subject,
        "person": person,
        "mark": mark,
        "actions": " ".join(actions),
    }
    safe = {key: escape(value) for key, value in values.items()}
    leave = '<button type="button" id="leave">Log out</button>' if can_leave else ""
    return _template("page.html").substitute(safe, tabs=_tabs(name, fleet), leave=leave)


def login_page(*, problem: str = "") -> str:
    """Where a token is asked for."""
    return _template("login.html").substitute(problem=escape(problem))


def static(name: str) -> tuple[bytes, str] | None:
    """A file for browsers and its type; None where there is none of that name."""
    suffix = name[name.rfind(".") :]
    if suffix not in STATIC or "/" in name or name.startswith("."):
        return None
    try:
        return _static(name), f"{STATIC[suffix]}; charset=utf-8"
    except FileNotFoundError:
        return None


def _tabs(current: str, fleet: str) -> str:
    if not fleet:
        return ""
    links = []
    for name, title in TABS.items():
        path = f"/fleets/{escape(fleet)}" + ("" if name == "overview" else f"/{name}")
        here = ' aria-current="page"' if name == current else ""
        links.append(f'<li><a href="{path}"{here}>{title}</a></li>')
    return f'<nav aria-label="Fleet {escape(fleet)}"><ul class="tabs">{"".join(links)}</ul></nav>'


@lru_cache
def _template(name: str) -> Template:
    return Template(_static(name).decode())


@lru_cache
def _static(name: str) -> bytes:
    path = files("fleet.operate.dashboard").joinpath("pages", name)
    return path.read_bytes()
