"""From the audit to a receiver: through real sockets and processes, and what goes wrong on the way."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import pytest

from fleet.core.manifest.notify_models import Notification
from fleet.errors import FleetError
from fleet.operate.notify.notifier import Background, Notifier, Receivers
from fleet.operate.notify.overview import failing, summary
from fleet.operate.notify.sending import told
from fleet.operate.notify.spool_file import read_spool
from fleet.state import audit as audits
from fleet.state import controller_heartbeat
from fleet.state.audit import Audit
from fleet.state.controller_heartbeat import Heartbeat
from fleet.state.paths import Places
from tests.operate.notify.standins import Mail, Web, mail_server, web_server

TOKEN = "Bearer s3cr3tvalue"
CRASH = {"event": "worker.crashed", "replica": "a.0", "reason": "killed by SIGKILL"}


@dataclass
class Desk:
    """A fleet's folder, a clock, and those who are told."""

    places: Places
    clock: list[float] = field(default_factory=lambda: [1_000_000.0])
    secrets: dict[str, str] = field(default_factory=lambda: {"token": TOKEN})

    @property
    def audit(self) -> Audit:
        return Audit(self.places.audit, now=lambda: self.clock[0])

    def receivers(self, *rows: dict[str, Any], secrets: Any = None) -> Receivers:
        notifications = [Notification.model_validate({"on": ["all"], **row}) for row in rows]
        return Receivers(notifications, secrets or (lambda: self.secrets), self.places.root)

    def notifier(self, *rows: dict[str, Any], secrets: Any = None) -> Notifier:
        notifier = Notifier(self.places, self.receivers(*rows, secrets=secrets), now=lambda: self.clock[0])
        notifier.begin()
        return notifier


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    places = Places.of(tmp_path, "shop")
    for folder in (places.run, places.state):
        folder.mkdir(parents=True)
    return Desk(places)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def mail() -> Iterator[Mail]:
    with mail_server() as server:
        yield server


def hook(web: Web, **more: Any) -> dict[str, Any]:
    return {"webhook": {"url": f"{web.url}/hook", **more}}


# --- the ways


def test_a_webhook_gets_a_document_with_its_headers(desk: Desk, web: Web) -> None:
    notifier = desk.notifier(hook(web, headers={"Authorization": {"secret": "token"}}))
    desk.audit.write(CRASH)

    notifier.look()

    ((path, headers, body),) = web.got
    assert (path, headers["Authorization"], headers["Content-Type"]) == ("/hook", TOKEN, "application/json")
    document = json.loads(body)
    assert (document["fleet"], document["kind"], document["replica"], document["count"]) == ("shop", "crash", "a.0", 1)
    assert "killed by SIGKILL" in document["text"]


def test_a_body_of_ones_own_is_filled_in_everywhere(desk: Desk, web: Web) -> None:
    body = {"title": "{kind} of {replica}", "deep": [{"why": '"{reason}"'}, 3], "brace": "{{}}"}
    notifier = desk.notifier(hook(web, body=body))
    desk.audit.write(CRASH)

    notifier.look()

    expected = {"title": "crash of a.0", "deep": [{"why": '"killed by SIGKILL"'}, 3], "brace": "{}"}
    assert json.loads(web.bodies[0]) == expected


def test_slack_gets_a_text_whose_special_characters_are_escaped(desk: Desk, web: Web) -> None:
    desk.secrets["slack"] = f"{web.url}/T0P5ECRET"
    notifier = desk.notifier({"slack": {"url": {"secret": "slack"}}, "template": "<{replica}> & {kind}"})
    desk.audit.write(CRASH)

    notifier.look()

    assert json.loads(web.bodies[0]) == {"text": "&lt;a.0&gt; &amp; crash"}


def test_a_mail_is_handed_over_with_a_login(desk: Desk, mail: Mail) -> None:
    email = {"host": "127.0.0.1", "port": mail.port, "tls": "none", "from": "fleet@shop.example", "to": ["a@x.example"]}
    login = {"username": "me", "password": {"secret": "token"}}
    notifier = desk.notifier({"email": {**email, **login}, "subject": "[{fleet}] {kind}: {reason}"})
    desk.audit.write({**CRASH, "reason": "Grüße\r\nBcc: evil@x.example"})

    notifier.look()

    (text,) = mail.mails
    message = message_from_string(text, policy=policy.default)
    assert (message["From"], message["To"], message["Bcc"]) == ("fleet@shop.example", "a@x.example", None)
    assert message["Subject"].startswith("[shop] crash: Grüße")
    assert "Grüße" in message.get_content()
    assert any(line.startswith("AUTH PLAIN") for line in mail.said)


def test_a_program_gets_the_document_and_the_fields(desk: Desk) -> None:
    notifier = desk.notifier(
        {"command": ["sh", "-c", 'cat > got; echo "$FLEET_NOTIFY_KIND $FLEET_NOTIFY_REPLICA" > env']}
    )
    desk.audit.write(CRASH)

    notifier.look()

    assert json.loads((desk.places.root / "got").read_text())["kind"] == "crash"
    assert (desk.places.root / "env").read_text() == "crash a.0\n"


# --- what goes wrong


def no_mail(mail: Mail, **refuses: str) -> dict[str, Any]:
    mail.refuses = refuses
    email = {"host": "127.0.0.1", "port": mail.port, "tls": "none", "from": "f@x.example", "to": ["a@x.example"]}
    return {"email": {**email, "username": "me", "password": {"secret": "token"}}}


@pytest.mark.parametrize(
    ("word", "answer", "error"),
    [
        ("AUTH", "535 no", "the mail server refused the login: 535"),
        ("MAIL", "451 later", "the mail server answered 451"),
        ("RCPT", "550 unknown", "the mail server refused a@x.example"),
        ("DATA", "554 no", "the mail server answered 554"),
        ("EHLO", "garbage", "the mail server"),
    ],
)
def test_a_mail_server_that_refuses_is_said(desk: Desk, mail: Mail, word: str, answer: str, error: str) -> None:
    notifier = desk.notifier(no_mail(mail, **{word: answer, "HELO": answer if word == "EHLO" else "250 fine"}))
    desk.audit.write(CRASH)

    spool = notifier.look()

    assert spool.error.startswith(error)
    assert len(spool.messages) == 1


def test_a_mail_that_some_receivers_refuse_is_not_sent_to_the_others_again(desk: Desk, mail: Mail) -> None:
    row = no_mail(mail, **{"RCPT TO:<B@": "550 unknown"})
    row["email"]["to"] = ["a@x.example", "b@x.example"]
    notifier = desk.notifier(row)
    desk.audit.write(CRASH)

    spool = notifier.look()

    assert (len(mail.mails), spool.messages, spool.dropped) == (1, (), 1)
    assert "refused b@x.example" in spool.error


@pytest.mark.parametrize("code", [302, 400, 401, 404, 429, 500])
def test_any_answer_but_a_good_one_is_no_delivery(desk: Desk, web: Web, code: int) -> None:
    web.code = code
    notifier = desk.notifier(hook(web))
    desk.audit.write(CRASH)

    spool = notifier.look()

    assert spool.error.startswith(f"the server answered {code}")
    assert "T0P5ECRET" not in spool.error
    assert [path for path, _, _ in web.got] == ["/hook"], "a redirect is not followed"
    (line,) = failing(desk.places)
    assert "do not arrive: 1 message waiting (webhook)" in line


def test_what_waits_is_sent_when_the_receiver_is_back(desk: Desk, web: Web) -> None:
    web.code = 503
    notifier = desk.notifier(hook(web))
    desk.audit.write(CRASH, {**CRASH, "replica": "b.0"})
    assert len(notifier.look().messages) == 2
    assert not notifier.is_due()

    web.code = 200
    desk.clock[0] += 5
    assert notifier.is_due()
    spool = notifier.look()

    assert (spool.messages, spool.sent, failing(desk.places)) == ((), 2, [])


def test_a_receiver_that_hangs_is_left_alone_after_its_time(desk: Desk, web: Web) -> None:
    web.code = 0
    notifier = desk.notifier({**hook(web), "timeout": "100ms"})
    desk.audit.write(CRASH)

    assert notifier.look().error == "the server gave no answer: no answer in time"


def test_nobody_there(desk: Desk) -> None:
    notifier = desk.notifier({"webhook": {"url": "http://127.0.0.1:1/"}})
    desk.audit.write(CRASH)

    assert notifier.look().error == "the server cannot be reached: Connection refused"


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["no-such-program"], "cannot run 'no-such-program': No such file or directory"),
        (["sh", "-c", "echo secret >&2; exit 3"], "'sh' failed: exit 3; it wrote 1 line of errors"),
        (["sh", "-c", "kill -9 $$"], "'sh' failed: signal 9; it wrote 0 lines of errors"),
        (["sleep", "1000"], "'sleep' did not end within 0.2 s"),
    ],
)
def test_a_program_that_fails_is_said(desk: Desk, command: list[str], error: str) -> None:
    notifier = desk.notifier({"command": command, "timeout": "200ms" if command[0] == "sleep" else "1m"})
    desk.audit.write(CRASH)

    assert notifier.look().error == error


def test_a_program_is_not_run_where_code_of_a_manifest_must_not_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_NO_EXEC", "1")
    notifier = desk.notifier({"command": ["touch", "ran"]})
    desk.audit.write(CRASH)

    assert "--no-exec forbids" in notifier.look().error
    assert not (desk.places.root / "ran").exists()


def test_one_receiver_that_fails_does_not_keep_it_from_the_others(desk: Desk, web: Web) -> None:
    notifier = desk.notifier({"webhook": {"url": "http://127.0.0.1:1/"}}, hook(web))
    desk.audit.write(CRASH)

    spool = notifier.look()

    assert len(web.got) == 1
    assert (summary(desk.places)["failing"], summary(desk.places)["sent"]) == (1, 1)
    assert spool.error, "what still waits is not hidden by what arrived"


# --- secrets


def test_no_secret_is_sent_or_kept(desk: Desk, web: Web) -> None:
    notifier = desk.notifier(hook(web, headers={"Authorization": {"secret": "token"}}))
    reason = f"the app said {TOKEN} and amqp://user:hunter2@host/"
    desk.audit.write({**CRASH, "reason": reason, "by": TOKEN})
    web.code = 500

    notifier.look()

    for text in (*web.bodies, desk.places.notifications.read_text()):
        assert "s3cr3tvalue" not in text
        assert "hunter2" not in text
        assert "amqp://user:**@host/" in text


def test_a_secret_that_cannot_be_read_is_said_and_tried_again(desk: Desk, web: Web) -> None:
    def none() -> Mapping[str, str]:
        raise FleetError("secret token: cannot read /x")

    row = hook(web, headers={"Authorization": {"secret": "token"}})
    desk.notifier(row)
    desk.audit.write(CRASH)
    assert "secret token: cannot read /x" in desk.notifier(row, secrets=none).look().error

    desk.clock[0] += 5
    assert desk.notifier(row).look().sent == 1


# --- crashes, and several at once


def test_news_are_told_once_by_whoever_comes_first(desk: Desk, web: Web) -> None:
    first, second = desk.notifier(hook(web)), desk.notifier(hook(web))
    desk.audit.write(CRASH)

    first.look()
    second.look()

    assert len(web.got) == 1


def test_whoever_finds_another_at_it_leaves_it_to_that_one(desk: Desk, web: Web) -> None:
    notifier = desk.notifier(hook(web))
    desk.audit.write(CRASH)
    with desk.places.notifications_lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        notifier.look()

    assert web.got == []


def test_what_was_before_the_first_look_is_not_told(desk: Desk, web: Web) -> None:
    desk.audit.write(CRASH)

    desk.notifier(hook(web)).look()

    assert web.got == []


def test_an_audit_that_is_moved_aside_loses_no_news(desk: Desk, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    notifier = desk.notifier({**hook(web), "window": "0s"})
    monkeypatch.setattr(audits, "LIMIT_BYTES", 200)
    for number in range(6):
        desk.audit.write({**CRASH, "replica": f"a.{number}"})

    notifier.look()

    assert [json.loads(body)["replica"] for body in web.bodies] == [f"a.{number}" for number in range(6)]


def test_half_a_line_is_told_when_it_is_whole(desk: Desk, web: Web) -> None:
    notifier = desk.notifier(hook(web))
    line = json.dumps({"at": desk.clock[0], **CRASH}).encode() + b"\n"
    with desk.places.audit.open("ab") as file:
        file.write(line[:20])
        file.flush()
        notifier.look()
        assert web.got == []
        file.write(line[20:])
    notifier.look()

    assert len(web.got) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"messages": 1}', '{"messages": [{}]}', "\x00"])
def test_a_damaged_spool_begins_again(desk: Desk, web: Web, text: str) -> None:
    notifier = desk.notifier(hook(web))
    desk.places.notifications.write_text(text)

    notifier.look()
    desk.audit.write(CRASH)
    notifier.look()

    assert len(web.got) == 1


# --- who sends


def test_without_a_controller_a_command_sends_what_it_wrote(desk: Desk, web: Web) -> None:
    with told(desk.places, desk.receivers(hook(web)), now=lambda: desk.clock[0]):
        desk.audit.write(CRASH)

    assert len(web.got) == 1


def test_a_controller_that_works_sends_for_it(desk: Desk, web: Web) -> None:
    heartbeat = Heartbeat(desk.clock[0], desk.clock[0] + 5, os.getpid())
    controller_heartbeat.write(desk.places.controller_heartbeat, heartbeat)
    with told(desk.places, desk.receivers(hook(web)), now=lambda: desk.clock[0]):
        desk.audit.write(CRASH)
    assert web.got == []

    desk.notifier(hook(web)).look()
    assert len(web.got) == 1


def test_a_command_that_fails_tells_it_all_the_same(desk: Desk, web: Web) -> None:
    def command() -> None:
        with told(desk.places, desk.receivers(hook(web)), now=lambda: desk.clock[0]):
            desk.audit.write(CRASH)
            raise FleetError("it broke")

    with pytest.raises(FleetError, match="it broke"):
        command()

    assert len(web.got) == 1


def test_a_receiver_that_hangs_holds_nothing_up_but_itself(desk: Desk) -> None:
    go_on, looks = threading.Event(), []

    def look() -> None:
        looks.append(1)
        go_on.wait()

    background = Background()
    background.start(look)
    background.start(look)
    background.wait(0.0)
    go_on.set()
    background.wait(10.0)

    assert len(looks) == 1
    assert read_spool(desk.places).messages == ()
