"""What ``spec.notify`` says must be possible: one way each, templates that can be filled in, no secret in the text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.notify_models import TEMPLATE_FIELDS, Email, Notification, Webhook, template_problem
from fleet.core.manifest.tree import Path
from fleet.core.text.format import shown
from fleet.core.text.mask import looks_secret, masked
from fleet.core.text.suggest import did_you_mean

_DECLARE = "declare it under spec.secrets and write `{secret: name}`"


def notify(context: CheckContext) -> None:
    """Each notification by itself."""
    for index, one in enumerate(context.manifest.spec.notify):
        here: Path = ("spec", "notify", index)
        if not context.is_broken(*here):
            _one(context, here, one)


def _one(context: CheckContext, here: Path, one: Notification) -> None:
    ways = list(one.ways())
    if len(ways) != 1:
        message = f"{len(ways)} ways at once: {', '.join(ways)}" if ways else "it names no way"
        context.problem(here, message, "give exactly one of webhook, slack, email, command")
    for path, secret in one.secrets():
        context.declared((*here, *path), secret)
    known = context.names("spec", "groups")
    for name in one.groups or ():
        if name not in known:
            hint = did_you_mean(name, known) or "remove it"
            context.problem((*here, "groups"), f"there is no group {shown(name)}", hint)
    for path, text in _templates(one):
        problem, field = template_problem(text)
        if problem:
            hint = did_you_mean(field, TEMPLATE_FIELDS) or f"known: {', '.join(TEMPLATE_FIELDS)}; `{{{{` is a brace"
            context.problem((*here, *path), f"not a template: {problem}", hint)
    if one.webhook is not None:
        _webhook(context, (*here, "webhook"), one.webhook)
    if one.email is not None:
        _email(context, (*here, "email"), one.email)


def _templates(one: Notification) -> Iterator[tuple[tuple[str, ...], str]]:
    for name in ("subject", "template"):
        if (text := getattr(one, name)) is not None:
            yield (name,), text
    if one.webhook is not None and one.webhook.body is not None:
        yield from ((("webhook", "body", *path), text) for path, text in _texts(one.webhook.body, ()))


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, (*path, str(name)))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, path)


def _webhook(context: CheckContext, here: Path, webhook: Webhook) -> None:
    url = webhook.url
    if isinstance(url, str):
        if not url.startswith(("http://", "https://")):
            context.problem((*here, "url"), f"not an address: {shown(url)}", "write it like https://host/path")
        elif masked(url) != url:
            context.problem((*here, "url"), "the address holds a password", _DECLARE)
    for name, value in webhook.headers.items():
        if isinstance(value, str) and looks_secret(name):
            context.problem((*here, "headers", name), f"the header {name} holds a password", _DECLARE)


def _email(context: CheckContext, here: Path, email: Email) -> None:
    if (email.username is None) != (email.password is None):
        context.problem(here, "username and password belong together", "give both or none")
    if email.password is not None and email.tls == "none":
        context.problem((*here, "tls"), "the password would be readable on the way", "use starttls or tls")
