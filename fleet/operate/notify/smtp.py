"""The door to mail: one message, handed to an SMTP server."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from fleet.core.manifest.notify_models import Email
from fleet.operate.notify.errors import NotSent

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def send(email: Email, *, subject: str, text: str, password: str, timeout_seconds: float) -> None:
    """Send it to all receivers. Raises NotSent."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = email.from_, ", ".join(email.to), subject
    mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=email.from_.rpartition("@")[2])
    mail.set_content(text + "\n", cte="quoted-printable")  # not every server takes eight bits
    try:
        with _connected(email, timeout_seconds) as server:
            if email.username is not None:
                server.login(email.username, password)
            refused = server.send_message(mail, email.from_, email.to)
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(f"the mail server refused the login: {error.smtp_code}") from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the mail server answered {error.smtp_code}") from None
    except smtplib.SMTPRecipientsRefused as error:
        raise NotSent(f"the mail server refused {', '.join(sorted(error.recipients))}") from None
    except smtplib.SMTPException as error:
        raise NotSent(f"the mail server did not take it: {type(error).__name__}") from None
    except OSError as error:
        raise NotSent(f"the mail server cannot be reached: {error.strerror or type(error).__name__}") from None
    if refused:
        raise NotSent(f"the mail server refused {', '.join(sorted(refused))}; the others have it", is_final=True)


def _connected(email: Email, timeout_seconds: float) -> smtplib.SMTP:
    port = email.port or _PORTS[email.tls]
    if email.tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(email.host, port, timeout=timeout_seconds, context=context)
    server = smtplib.SMTP(email.host, port, timeout=timeout_seconds)
    if email.tls == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server
