"""``spec.notify``: what is refused, where, and that it restarts nothing."""

from __future__ import annotations

import pytest

from fleet.core.expand.specs import secrets_of
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError, Problem

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  secrets: {{hook: {{file: /etc/hook}}}}
  notify:
    - {row}
  groups:
    clock: {{command: [sleep, '1'], replicas: 1}}
"""


def problems(row: str) -> list[Problem]:
    try:
        return list(parse([Source("fleet.yaml", MANIFEST.format(row=row).encode())], environ={}).warnings)
    except ManifestError as error:
        return list(error.problems)


HOOK = "{slack: {url: {secret: hook}}, "
MAIL = "{email: {host: h, from: a@x.example, to: [b@x.example], "
GOOD = [
    HOOK + "on: [all]}",
    HOOK + 'on: [rollout.failed, crash], groups: [clock], template: "{kind} {{x}} {reason}", window: 0s}',
    "{webhook: {url: {secret: hook}, body: {a: '{fleet}', b: [1, {c: '{count}'}]}}}",
    "{webhook: {url: 'https://h/x', headers: {X-Team: shop, Authorization: {secret: hook}}}}",
    MAIL + "username: me, password: {secret: hook}}, subject: '{kind}'}",
    "{command: [./page, '{not a template}'], timeout: 5s}",
]


@pytest.mark.parametrize("row", GOOD)
def test_what_can_be_done_is_taken(row: str) -> None:
    assert [one.message for one in problems(row) if "nothing uses this secret" not in one.message] == []


BAD = [
    ("{on: [all]}", "spec.notify[0]", "it names no way"),
    ("{command: [x], slack: {url: {secret: hook}}}", "spec.notify[0]", "2 ways at once: slack, command"),
    ("{slack: {url: {secret: hok}}}", "spec.notify[0].slack.url.secret", "not declared"),
    ("{slack: {url: 'https://hooks.slack.com/x'}}", "spec.notify[0].slack.url", ""),
    ("{webhook: {url: 'ftp://h/'}}", "spec.notify[0].webhook.url", "not an address"),
    ("{webhook: {url: 'https://me:pw@h/'}}", "spec.notify[0].webhook.url", "holds a password"),
    ("{webhook: {url: 'https://h/?token=abc'}}", "spec.notify[0].webhook.url", "holds a password"),
    (
        "{webhook: {url: 'https://h/', headers: {Authorization: abc}}}",
        "spec.notify[0].webhook.headers.Authorization",
        "holds a password",
    ),
    (HOOK + "on: [crashed]}", "spec.notify[0].on[0]", ""),
    (HOOK + "groups: [clok]}", "spec.notify[0].groups", "there is no group"),
    (HOOK + "template: '{kin}'}", "spec.notify[0].template", "there is no field {kin}"),
    (HOOK + "template: '{kind'}", "spec.notify[0].template", "a brace without its partner"),
    (HOOK + "template: '{kind!r}'}", "spec.notify[0].template", "takes no format"),
    (HOOK + "template: '{kind.__class__}'}", "spec.notify[0].template", "there is no field"),
    ("{webhook: {url: 'https://h/', body: {a: ['{x}']}}}", "spec.notify[0].webhook.body.a", "there is no field {x}"),
    (MAIL + "username: me}}", "spec.notify[0].email", "belong together"),
    (MAIL + "tls: none, username: me, password: {secret: hook}}}", "spec.notify[0].email.tls", "readable on the way"),
    ("{command: [x], on: []}", "spec.notify[0].on", ""),
    ("{email: {host: h, from: nobody, to: [b@x.example]}}", "spec.notify[0].email.from", ""),
]


@pytest.mark.parametrize(("row", "path", "message"), BAD)
def test_what_cannot_be_done_is_refused_with_its_place(row: str, path: str, message: str) -> None:
    found = [one for one in problems(row) if one.path == path]

    assert found, [(one.path, one.message) for one in problems(row)]
    assert message in found[0].message
    assert found[0].line == 7


def test_its_secrets_are_used_and_reach_the_controller() -> None:
    parsed = parse([Source("fleet.yaml", MANIFEST.format(row=GOOD[0]).encode())], environ={})

    assert secrets_of(parsed.manifest) == ("hook",)
    assert problems(GOOD[0]) == []
