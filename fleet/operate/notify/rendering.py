"""From a message to what is sent: the text, the subject and the document, without secrets in them. PURE."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fleet.core.text.format import duration, one_line
from fleet.core.text.mask import MASK, masked_text
from fleet.operate.notify.spool import Message

if TYPE_CHECKING:
    from fleet.core.manifest.notify_models import Notification

_SHORTEST_SECRET = 4
Masker = Callable[[str], str]


def masker(secrets: Mapping[str, str]) -> Masker:
    """Takes out the values of secrets, whole, and what looks like a password in an address."""
    values = sorted({one for one in secrets.values() if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def mask(text: str) -> str:
        for value in values:
            text = text.replace(value, MASK)
        return masked_text(text)

    return mask


def fields_of(message: Message, *, fleet: str, host: str, mask: Masker) -> dict[str, str]:
    """What templates may name, each on one line."""
    news = message.news
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(news.at))
    found = {
        "fleet": fleet,
        "host": host,
        "kind": news.kind,
        "group": news.group,
        "replica": news.replica,
        "reason": news.reason,
        "by": news.by,
        "revision": str(news.revision) if news.revision else "",
        "time": stamp,
        "count": str(message.count),
    }
    return {name: one_line(mask(text), most=2000) for name, text in found.items()}


def filled(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields filled in."""
    return template.format_map(fields)


def text_of(notification: Notification, fields: Mapping[str, str]) -> str:
    """The text for people: by the template, else in a line or two."""
    if notification.template is not None:
        return filled(notification.template, fields)
    about = fields["replica"] or (f"revision {fields['revision']}" if fields["revision"] else "")
    parts = [f"fleet {fields['fleet']} on {fields['host']}: {fields['kind']}", about, fields["reason"]]
    text = ": ".join(part for part in parts if part)
    if fields["count"] == "1":
        return text
    return f"{text} ({fields['count']} times within {duration(notification.window_seconds)}; this is the last)"


def subject_of(notification: Notification, fields: Mapping[str, str]) -> str:
    """The subject of a mail, on one line."""
    if notification.subject is not None:
        return one_line(filled(notification.subject, fields))
    about = f" {fields['group']}" if fields["group"] else ""
    return f"[fleet {fields['fleet']}] {fields['kind']}{about}"


def document_of(notification: Notification, fields: Mapping[str, str], text: str) -> dict[str, Any]:
    """The JSON document of a webhook or a command: that of the manifest, filled in, else all fields and the text."""
    body = notification.webhook.body if notification.webhook is not None else None
    if body is not None:
        made: dict[str, Any] = _filled_in(body, fields)
        return made
    return {**fields, "count": int(fields["count"]), "text": text}


def _filled_in(value: Any, fields: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return filled(value, fields)
    if isinstance(value, dict):
        return {name: _filled_in(inner, fields) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled_in(inner, fields) for inner in value]
    return value
