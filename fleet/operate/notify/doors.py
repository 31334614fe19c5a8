"""One message to its receiver, through the door that the notification names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.operate.notify.errors import NotSent
from fleet.operate.notify.rendering import document_of, subject_of, text_of

if TYPE_CHECKING:
    from fleet.core.manifest.notify_models import Notification
    from fleet.core.manifest.secret_ref import SecretRef


def deliver(notification: Notification, fields: Mapping[str, str], *, secrets: Mapping[str, str], folder: Path) -> None:
    """Send it once. Raises NotSent. What a way out needs is imported when it is taken: most fleets take none."""
    text, timeout = text_of(notification, fields), notification.timeout_seconds
    if (slack := notification.slack) is not None:
        from fleet.operate.notify import http

        http.post(_value(slack.url, secrets), {"text": _for_slack(text)}, headers={}, timeout_seconds=timeout)
    elif (webhook := notification.webhook) is not None:
        from fleet.operate.notify import http

        headers = {name: _value(value, secrets) for name, value in webhook.headers.items()}
        document = document_of(notification, fields, text)
        http.post(_value(webhook.url, secrets), document, headers=headers, timeout_seconds=timeout)
    elif (email := notification.email) is not None:
        from fleet.operate.notify import smtp

        password = _value(email.password, secrets) if email.password is not None else ""
        subject = subject_of(notification, fields)
        smtp.send(email, subject=subject, text=text, password=password, timeout_seconds=timeout)
    elif notification.command is not None:
        from fleet.operate.notify import command

        document = document_of(notification, fields, text)
        command.run(notification.command, document, fields=fields, folder=folder, timeout_seconds=timeout)


def _value(said: str | SecretRef, secrets: Mapping[str, str]) -> str:
    if isinstance(said, str):
        return said
    if said.secret not in secrets:
        raise NotSent(f"the value of secret {said.secret!r} is not known")
    return secrets[said.secret]


def _for_slack(text: str) -> str:
    """The three characters that Slack reads as something else."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
