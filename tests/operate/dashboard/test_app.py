"""Pages and documents in this process: what they say, who gets them, and what they never say."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from fleet.operate.dashboard import page_text
from fleet.operate.dashboard.access import Policy
from fleet.operate.dashboard.actions import ACTIONS
from fleet.operate.dashboard.guard import HEADERS, MOST_BODY_BYTES
from fleet.state.logs import files
from tests.cli.conftest import Desk
from tests.conftest import eventually
from tests.operate.dashboard.conftest import ACTING, HOSTS, OPEN, TOKEN, WITH_TOKEN, Serve, mark_of

PAGES = ("/", "/fleets/shop", *(f"/fleets/shop/{tab}" for tab in page_text.TABS if tab != "overview"))
ALL_PAGES = (*PAGES, "/fleets/shop/replicas/thumbs.0")
DOCUMENTS = ("", "/hour", "/history", "/history/1", "/events", "/rollout", "/explain", "/logs")
EVIL = '<script>alert(1)</script>"'


@pytest.mark.parametrize("path", ALL_PAGES)
def test_every_page_is_there_with_its_title(serve: Serve, path: str) -> None:
    answer = serve().get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.count("<h1>") == 1
    assert re.search(r"<title>.+</title>", answer.text)


@pytest.mark.parametrize("path", ALL_PAGES)
def test_pages_load_nothing_from_elsewhere_and_hold_no_script_or_style(serve: Serve, path: str) -> None:
    client = serve()
    text = client.get(path).text
    for link in re.findall(r'(?:src|href)="([^"#]+)"', text):
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    assert "<style" not in text
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=", text)


def test_every_script_imports_what_there_is(serve: Serve) -> None:
    client = serve()
    left, seen = (
        ["/static/main.js", *(f"/static/page-{name}.js" for name in (*page_text.TABS, "fleets", "replica"))],
        set(),
    )
    while left:
        path = left.pop()
        answer = client.get(path)
        assert (path, answer.status_code) == (path, 200)
        assert answer.headers["content-type"].startswith("text/javascript")
        seen.add(path)
        left += [found for found in re.findall(r'from "([^"]+)"', answer.text) if found not in seen]
    assert "/static/dom.js" in seen


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/..%2fapp.py", "/static/page.html", "/nothing", "/fleets/other"]
)
def test_what_is_not_there_is_not_found(serve: Serve, path: str) -> None:
    answer = serve().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [*ALL_PAGES, "/static/main.js", "/api/fleets/shop", "/nothing", "/login"])
def test_every_answer_has_the_headers_that_protect_it(serve: Serve, path: str) -> None:
    headers = serve().get(path).headers
    for name, value in HEADERS:
        assert headers[name] == value
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cache-control"] == ("public, max-age=300" if path.startswith("/static/") else "no-store")


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_document_is_json(serve: Serve, path: str) -> None:
    assert isinstance(serve().get(f"/api/fleets/shop{path}").json(), dict)


# --- what is shown


def test_the_picture_has_groups_and_replicas(serve: Serve) -> None:
    client = serve()
    eventually(lambda: client.get("/api/fleets/shop").json()["replicas"])
    found = client.get("/api/fleets/shop").json()
    assert found["head"]["fleet"] == "shop"
    assert found["head"]["replicas"]["desired"] == 5
    assert {name for name, group in found["groups"].items() if not group["system"]} == {"thumbs", "reports", "clock"}
    assert {"thumbs.0", "thumbs.1", "thumbs.2", "reports.0", "clock.0"} <= set(found["replicas"])
    assert found["queues"]["queues"]["thumbs"]["groups"] == ["thumbs"]


def test_history_says_what_changed_and_what_was_planned(serve: Serve, desk: Desk) -> None:
    client = serve()
    desk.write(thumbs=4)
    desk.fleet("apply", str(desk.manifest), "--yes", "--reason", "more of them")
    newest, first = client.get("/api/fleets/shop/history").json()["revisions"]
    assert (newest["revision"], newest["current"], first["current"]) == (2, True, False)
    found = client.get("/api/fleets/shop/history/2").json()
    assert found["difference"] == [{"path": "spec.groups.thumbs.replicas", "was": "3", "is": "4"}]
    (plan,) = found["plans"]
    assert (plan["verb"], plan["outcome"], plan["reason"]) == ("apply", "done", "more of them")
    assert [step for step, _ in plan["steps"]] == ["start thumbs.3"]


def test_events_come_newest_first_with_their_reasons(serve: Serve, desk: Desk) -> None:
    client = serve()
    desk.fleet("scale", "--fleet", "shop", "--live", "thumbs=2", "--yes", "--reason", "less to do")
    found = client.get("/api/fleets/shop/events").json()["events"]
    assert found[0]["event"] == "scale.ended"
    assert "less to do" in next(one["why"] for one in found if one["event"] == "override")
    assert [one["at"] for one in found] == sorted((one["at"] for one in found), reverse=True)
    assert len(client.get("/api/fleets/shop/events?last=2").json()["events"]) == 2


def test_rollout_and_explain(serve: Serve) -> None:
    client = serve()
    assert client.get("/api/fleets/shop/rollout").json()["state"] == "complete"
    assert client.get("/api/fleets/shop/explain").json()["groups"]["thumbs"]["slots"] == 3


def test_logs_by_group_and_their_end(serve: Serve, desk: Desk) -> None:
    client = serve()
    folder = desk.folder / "home" / "shop" / "log"
    folder.mkdir(exist_ok=True)
    (folder / "thumbs.0.log").write_text(f"2026-11-21 10:00:00 one\n2026-11-21 10:00:02 {EVIL}\n")
    (folder / "reports.0.log").write_text("2026-11-21 10:00:01 redis://user:hunter2@host/0\n")
    assert set(files(folder)) == {"thumbs.0", "reports.0"}
    texts = [one["text"] for one in client.get("/api/fleets/shop/logs").json()["lines"]]
    assert [text[20:] for text in texts] == ["one", "redis://user:**@host/0", EVIL]
    only = client.get("/api/fleets/shop/logs?name=thumbs&last=1").json()["lines"]
    assert [one["replica"] for one in only] == ["thumbs.0"]
    assert client.get("/api/fleets/shop/logs?name=nobody").status_code == 400


def test_no_secret_is_in_any_answer(desk: Desk, serve: Serve) -> None:
    more = (
        "    hidden:\n"
        "      pool: solo\n"
        "      replicas: 1\n"
        "      queues: [hidden]\n"
        '      env: {PLAIN: "value-of-plain", URL: "amqp://u:value-of-url@h//"}\n'
    )
    desk.write(more=more)
    text = desk.manifest.read_text().replace("redis://localhost/0", "redis://user:value-of-broker@localhost/0")
    desk.manifest.write_text(text)
    desk.fleet("apply", str(desk.manifest), "--yes")
    client = serve()
    eventually(lambda: client.get("/api/fleets/shop").json()["replicas"])
    for path in (*ALL_PAGES, *(f"/api/fleets/shop{one}" for one in (*DOCUMENTS, "/history/2"))):
        assert "value-of" not in client.get(path).text, path
    rows = {row["path"]: row for row in client.get("/api/fleets/shop/history/2").json()["difference"]}
    assert rows["spec.groups.hidden.env.PLAIN"] == {"path": "spec.groups.hidden.env.PLAIN", "was": None, "is": "**"}


def test_a_name_in_an_address_cannot_become_markup(serve: Serve) -> None:
    answer = serve().get(f"/fleets/shop/replicas/{EVIL}")
    assert answer.status_code == 404
    assert "<script>alert" not in page_text.page("replica", EVIL, fleet=EVIL, subject=EVIL, person=EVIL)
    assert "<script>alert" not in page_text.login_page(problem=EVIL)


# --- who gets it


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9810", "", "testserver.evil.example", "[::1]"])
def test_another_name_is_another_server(serve: Serve, host: str) -> None:
    client = serve()
    for path in ("/", "/static/main.js", "/api/fleets/shop", "/login"):
        assert client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(serve: Serve, method: str) -> None:
    assert serve().request(method, "/").status_code == 405


def test_a_token_opens_a_session_and_ends_with_it(serve: Serve) -> None:
    client = serve(WITH_TOKEN)
    assert client.get("/").headers["location"] == "/login"
    assert client.get("/api/fleets/shop").status_code == 401
    assert client.get("/static/main.js").status_code == 200
    wrong = client.post("/login", data={"token": "another-token-of-that-length"})
    assert wrong.status_code == 401
    assert "set-cookie" not in wrong.headers
    answer = client.post("/login", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    page = client.get("/").text
    assert "bob" in page
    assert client.post("/api/logout", json={}, headers={"x-fleet-page": mark_of(page)}).status_code == 200
    assert client.get("/").status_code == 303


def test_a_session_over_tls_is_for_tls_alone(serve: Serve) -> None:
    client = serve(replace(WITH_TOKEN, is_secure=True))
    answer = client.post("/login", data={"token": TOKEN})
    assert answer.headers["set-cookie"].startswith("__Host-fleet=")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert "strict-transport-security" in answer.headers


def test_scripts_give_their_token_with_each_request(serve: Serve) -> None:
    client = serve(WITH_TOKEN)
    assert client.get("/api/fleets/shop", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/api/fleets/shop", headers={"authorization": "Bearer nothing"}).status_code == 401
    asked = {"action": "drain", "names": ["no such name"]}
    answer = client.post("/api/fleets/shop/plan", json=asked, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 400  # let in, and then refused for what it asks


def test_only_the_proxy_says_who_asks(serve: Serve) -> None:
    policy = Policy(HOSTS, trust_header="x-forwarded-user", proxies=frozenset({"testclient"}), may_act=True)
    client = serve(policy)
    assert client.get("/").status_code == 401
    assert "carol" in client.get("/", headers={"X-Forwarded-User": "carol"}).text
    twice = [("X-Forwarded-User", "carol"), ("x-forwarded-user", "root")]
    assert client.get("/", headers=twice).status_code == 400
    elsewhere = serve(replace(policy, proxies=frozenset({"10.0.0.7"})))
    assert elsewhere.get("/", headers={"X-Forwarded-User": "carol"}).status_code == 403


def test_the_header_of_a_proxy_means_nothing_where_none_is_trusted(serve: Serve) -> None:
    assert serve(WITH_TOKEN).get("/", headers={"X-Forwarded-User": "carol"}).status_code == 303


# --- who may do something

POSTS = ("plan", "act", "stacks")


@pytest.mark.parametrize("what", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-fleet-page": "0" * 64},
        {"x-fleet-page": "MARK", "origin": "http://evil.example"},
        {"x-fleet-page": "MARK", "origin": "null"},
        {"x-fleet-page": "MARK", "sec-fetch-site": "cross-site"},
        {"x-fleet-page": "MARK", "sec-fetch-site": "same-site"},
    ],
)
def test_no_other_page_can_ask_for_anything(serve: Serve, what: str, headers: dict[str, str]) -> None:
    client = serve(ACTING)
    mark = mark_of(client.get("/").text)
    sent = {name: mark if value == "MARK" else value for name, value in headers.items()}
    asked = {"action": "drain", "names": ["thumbs"], "replica": "thumbs.0"}
    assert client.post(f"/api/fleets/shop/{what}", json=asked, headers=sent).status_code == 403


def test_the_mark_of_one_session_is_nothing_to_another(serve: Serve) -> None:
    one, other = serve(WITH_TOKEN), serve(WITH_TOKEN)
    for client in (one, other):
        client.post("/login", data={"token": TOKEN})
    mark = mark_of(one.get("/").text)
    asked = {"action": "drain", "names": ["no such name"]}
    assert one.post("/api/fleets/shop/plan", json=asked, headers={"x-fleet-page": mark}).status_code == 400
    assert other.post("/api/fleets/shop/plan", json=asked, headers={"x-fleet-page": mark}).status_code == 403


def test_a_form_of_another_site_cannot_send_json(serve: Serve) -> None:
    client = serve(ACTING)
    headers = {"x-fleet-page": mark_of(client.get("/").text), "content-type": "text/plain"}
    body = json.dumps({"action": "drain", "names": ["thumbs"]})
    assert client.post("/api/fleets/shop/plan", content=body, headers=headers).status_code == 415


def test_nobody_logs_in_through_another_site(serve: Serve) -> None:
    client = serve(WITH_TOKEN)
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_without_leave(serve: Serve, action: str) -> None:
    client = serve(OPEN)
    page = client.get("/fleets/shop").text
    assert 'data-actions=""' in page
    asked = {
        "action": action,
        "names": ["thumbs"],
        "group": "thumbs",
        "count": 1,
        "revision": 1,
        "planDigest": "0" * 16,
    }
    for what in ("plan", "act"):
        answer = client.post(f"/api/fleets/shop/{what}", json=asked, headers={"x-fleet-page": mark_of(page)})
        assert (answer.status_code, "--allow-actions" in answer.text) == (403, True)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 5_000, b"null"])
def test_what_is_no_object_is_refused(serve: Serve, body: bytes) -> None:
    client = serve(ACTING)
    headers = {"x-fleet-page": mark_of(client.get("/").text), "content-type": "application/json"}
    assert client.post("/api/fleets/shop/plan", content=body, headers=headers).status_code == 400


def test_a_long_body_is_not_read(serve: Serve) -> None:
    client = serve(ACTING)
    headers = {"x-fleet-page": mark_of(client.get("/").text), "content-type": "application/json"}
    body = b" " * (MOST_BODY_BYTES + 1)
    assert client.post("/api/fleets/shop/plan", content=body, headers=headers).status_code == 413
    assert client.post("/api/fleets/shop/plan", content=iter([body]), headers=headers).status_code == 413


def test_the_page_of_who_may_act_offers_it(serve: Serve) -> None:
    page = serve(ACTING).get("/fleets/shop").text
    assert f'data-actions="{" ".join(ACTIONS)}"' in page


def test_a_fleet_that_cannot_be_read_says_so(serve: Serve, desk: Desk) -> None:
    client: TestClient = serve(look_seconds=0.05)
    eventually(lambda: client.get("/api/fleets/shop").json()["replicas"])
    (desk.state / "standing.json").write_text("{")
    found = client.get("/api/fleets/shop/rollout")
    assert found.status_code == 500
    assert found.json()["error"]["message"]
