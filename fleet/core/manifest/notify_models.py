"""The models of ``spec.notify``: who is told of what, by which way."""

from collections.abc import Iterator
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.field_types import Command, Limit, Matching, Name, Seconds, word_or_map
from fleet.core.manifest.news_kinds import PROBLEMS, NewsKind
from fleet.core.manifest.secret_ref import SecretRef

WINDOW_SECONDS = 300.0
TIMEOUT_SECONDS = 10.0
TEMPLATE_FIELDS = ("fleet", "host", "kind", "group", "replica", "reason", "by", "revision", "time", "count")

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Template = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
HeaderName = Annotated[str, Matching(r"^[A-Za-z0-9-]{1,100}$")]
Address = Annotated[str, Matching(r"^[^@\s<>,;]{1,64}@[^@\s<>,;]{1,255}$")]
Host = Annotated[str, Matching(r"^[A-Za-z0-9.:_-]{1,255}$")]
Port = Annotated[int, Field(ge=1, le=65_535)]
TextOrSecret = Annotated[Annotated[Text, Tag("word")] | Annotated[SecretRef, Tag("map")], Discriminator(word_or_map)]


class Webhook(Model):
    """A POST of a JSON document, with `fleet`, `kind`, `text` and every field that templates have."""

    url: TextOrSecret = Field(description="an address without a password in it, or `{secret: name}`")
    headers: dict[HeaderName, TextOrSecret] = Field(
        default={}, description="headers beside its own, such as `Authorization: {secret: name}`"
    )
    body: dict[str, Any] | None = Field(
        default=None, description="the document instead of that; every text in it is a template"
    )


class Slack(Model):
    """An incoming webhook of Slack, or of what takes the same (Mattermost)."""

    url: SecretRef = Field(description="its address, which is a password: `{secret: name}`")


class Email(Model):
    """A mail, handed to an SMTP server."""

    host: Host = Field(description="the server")
    port: Port | None = Field(default=None, description="default: 587 with `starttls`, 465 with `tls`, 25 with `none`")
    tls: Literal["starttls", "tls", "none"] = Field(default="starttls", description="how the way is protected")
    username: Text | None = Field(default=None, description="who logs in; default: nobody")
    password: SecretRef | None = Field(default=None, description="`{secret: name}`")
    from_: Address = Field(alias="from", description="the sender")
    to: Annotated[list[Address], Field(min_length=1, max_length=100)] = Field(description="the receivers")


class Notification(Model):
    """Who is told of what. Exactly one of `webhook`, `slack`, `email` and `command`."""

    webhook: Webhook | None = Field(default=None, description="POST a JSON document")
    slack: Slack | None = Field(default=None, description="a message to Slack")
    email: Email | None = Field(default=None, description="a mail")
    command: Command | None = Field(
        default=None,
        description="a program, which gets the document on standard input; it runs in the manifest's folder",
    )
    on: Annotated[list[Literal[NewsKind, "all"]], Field(min_length=1)] | None = Field(
        default=None, description=f"of what; default: of what went wrong, {', '.join(f'`{one}`' for one in PROBLEMS)}"
    )
    groups: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="only of these groups, and of the fleet as a whole; default: of all"
    )
    subject: Template | None = Field(default=None, description="template of a mail's subject")
    template: Template | None = Field(default=None, description="template of the text")
    window: Seconds | None = Field(
        default=None,
        description="within it the same kind for the same group is told once, and then with its count; default: 5m",
    )
    timeout: Limit | None = Field(default=None, description="how long one attempt may take; default: 10s")

    @property
    def window_seconds(self) -> float:
        return WINDOW_SECONDS if self.window is None else self.window

    @property
    def timeout_seconds(self) -> float:
        return TIMEOUT_SECONDS if self.timeout is None else self.timeout

    def wants(self, kind: str, group: str) -> bool:
        """Whether this kind of news is told, of a group or ('') of the fleet as a whole."""
        kinds = PROBLEMS if self.on is None else self.on
        return ("all" in kinds or kind in kinds) and (not group or self.groups is None or group in self.groups)

    def ways(self) -> dict[str, Any]:
        """The ways that are given, by name."""
        names = ("webhook", "slack", "email", "command")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def secrets(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Path below the notification and name of every secret that it uses."""
        if self.webhook is not None:
            if isinstance(self.webhook.url, SecretRef):
                yield ("webhook", "url", "secret"), self.webhook.url.secret
            for name, value in self.webhook.headers.items():
                if isinstance(value, SecretRef):
                    yield ("webhook", "headers", name, "secret"), value.secret
        if self.slack is not None:
            yield ("slack", "url", "secret"), self.slack.url.secret
        if self.email is not None and self.email.password is not None:
            yield ("email", "password", "secret"), self.email.password.secret


def template_problem(text: str) -> tuple[str, str]:
    """What is wrong with a template, and the field that it names wrongly; both '' where nothing is."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError:
        return "a brace without its partner", ""
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if form or conversion:
            return f"{{{name}}} takes no format", ""
        if name not in TEMPLATE_FIELDS:
            return f"there is no field {{{name}}}", name
    return "", ""
