"""What others are told: requests as GitHub and GitLab document them, checked by a stand-in that refuses any other."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fleet.errors import FleetError
from fleet.operate.sync.definition import Definition
from fleet.operate.sync.forges import ForgeError, GitHub, GitLab, forge
from fleet.operate.sync.opening import service
from fleet.operate.sync.reconcile import LocalTarget
from fleet.operate.sync.reports import LONGEST_LINE, Report, comment, marker
from tests.operate.sync.worlds import Place, Upstream, manifest

SHA = "3f2c9ab0123456789abcdef0123456789abcdef0"
GITHUB_STATES = {"error", "failure", "pending", "success"}
GITLAB_STATES = {"pending", "running", "success", "failed", "canceled", "skipped"}


@dataclass
class StandIn:
    """A forge with one open request (number 7) for every commit. ``refuse``: paths it answers with that code."""

    statuses: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)

    def answer(self, method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        for pattern, code in self.refuse.items():
            if re.search(pattern, path):
                return code, {"message": "refused"}
        for words, reply in ((path.startswith("/api/v4/"), self._gitlab), (True, self._github)):
            if words:
                return reply(method, path, headers, body)
        raise AssertionError

    def _check(self, what: bool, said: str) -> None:
        if not what:
            self.wrong.append(said)

    def _github(self, method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        if headers["Authorization"] != "Bearer t0ken":
            return 401, {"message": "Bad credentials"}
        self._check(headers["Accept"] == "application/vnd.github+json", "Accept")
        self._check(headers["X-GitHub-Api-Version"] == "2022-11-28", "version")
        self._check(bool(headers["User-Agent"]), "GitHub refuses requests without a User-Agent")
        repo = "/repos/shop/deploy"
        if method == "POST" and re.fullmatch(rf"{repo}/statuses/[0-9a-f]{{40}}", path):
            self._check(set(body) <= {"state", "description", "context", "target_url"}, f"fields {set(body)}")
            self._check(body["state"] in GITHUB_STATES, f"state {body['state']}")
            self._check(len(body["description"]) <= 140, "description is too long")
            self.statuses.append({"sha": path[-40:], **body})
            return 201, {}
        if method == "GET" and re.fullmatch(rf"{repo}/commits/[0-9a-f]{{40}}/pulls", path):
            return 200, [{"number": 7}]
        if path.split("?")[0] == f"{repo}/issues/7/comments":
            return self._notes(method, body, 201)
        if method == "PATCH" and re.fullmatch(rf"{repo}/issues/comments/\d+", path):
            self.comments[int(path.rpartition("/")[2])] = body["body"]
            return 200, {}
        return 404, {"message": "Not Found"}

    def _gitlab(self, method: str, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        if headers["PRIVATE-TOKEN"] != "t0ken":
            return 401, {"message": "401 Unauthorized"}
        project = "/api/v4/projects/shop%2Fdeploy"
        if method == "POST" and re.fullmatch(rf"{project}/statuses/[0-9a-f]{{40}}", path):
            self._check(set(body) <= {"state", "description", "name", "target_url", "ref"}, f"fields {set(body)}")
            self._check(body["state"] in GITLAB_STATES, f"state {body['state']}")
            if self.statuses and self.statuses[-1]["state"] == body["state"]:
                return 400, {"message": "Cannot transition status via :enqueue from :pending"}
            self.statuses.append({"sha": path[-40:], **body})
            return 201, {}
        if method == "GET" and re.fullmatch(rf"{project}/repository/commits/[0-9a-f]{{40}}/merge_requests", path):
            return 200, [{"iid": 7}]
        if path.split("?")[0] == f"{project}/merge_requests/7/notes":
            return self._notes(method, body, 201)
        if method == "PUT" and re.fullmatch(rf"{project}/merge_requests/7/notes/\d+", path):
            self.comments[int(path.rpartition("/")[2])] = body["body"]
            return 200, {}
        return 404, {"message": "404 Not found"}

    def _notes(self, method: str, body: Any, code: int) -> tuple[int, Any]:
        if method == "GET":
            return 200, [{"id": number, "body": text} for number, text in self.comments.items()]
        self.comments[len(self.comments) + 1] = body["body"]
        return code, {}


@pytest.fixture
def stand_in() -> Iterator[tuple[str, StandIn]]:
    """Its address and itself. At the end no request may have been one that a forge would refuse."""
    kept = StandIn(comments={1: "a person's words"})

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, reply = kept.answer(self.command, self.path, self.headers, body)
            text = json.dumps(reply).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_words: object) -> None:
            pass

    for method in ("GET", "POST", "PATCH", "PUT"):
        setattr(Handler, f"do_{method}", Handler._serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kept
    server.shutdown()
    server.server_close()
    thread.join()
    assert kept.wrong == []


def door(provider: str, address: str, token: str = "t0ken") -> GitHub | GitLab:
    api = f"{address}/api/v4" if provider == "gitlab" else address
    made = forge(provider, "shop/deploy", token, name="shop-prod", api=api)
    assert isinstance(made, GitHub | GitLab)
    return made


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_status_and_one_comment_that_is_kept_current(provider: str, stand_in: tuple[str, StandIn]) -> None:
    address, kept = stand_in
    forge_ = door(provider, address)
    forge_.set_status(Report(SHA, "pending", "on its way"))
    forge_.set_status(Report(SHA, "failure", "fleet.yaml:7: unknown field"))
    assert [(one["sha"], one["description"]) for one in kept.statuses] == [
        (SHA, "on its way"),
        (SHA, "fleet.yaml:7: unknown field"),
    ]
    assert {one.get("context") or one.get("name") for one in kept.statuses} == {"fleet/shop-prod"}
    for line in ("first", "second"):
        assert forge_.comment(Report(SHA, "pending", line, comment("shop-prod", SHA, "pending", line, "Plan: …"))) == 1
    assert len(kept.comments) == 2
    assert kept.comments[1] == "a person's words"
    assert kept.comments[2].startswith(marker("shop-prod"))
    assert "second" in kept.comments[2]


def test_a_state_that_gitlab_knows_already_is_no_failure(stand_in: tuple[str, StandIn]) -> None:
    forge_ = door("gitlab", stand_in[0])
    for _ in range(2):
        forge_.set_status(Report(SHA, "pending", "on its way"))
    assert len(stand_in[1].statuses) == 1


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_refusal_is_said_without_the_token(provider: str, stand_in: tuple[str, StandIn]) -> None:
    with pytest.raises(ForgeError) as caught:
        door(provider, stand_in[0], "wr0ng-t0ken").set_status(Report(SHA, "pending", "x"))
    assert "401" in caught.value.message
    assert "wr0ng" not in caught.value.message


def test_markdown_cannot_be_broken_out_of() -> None:
    text = comment("s", SHA, "failure", "line", "```\n# not a heading\n````")
    assert text.count("`````") == 2


# --- the whole way


def look(place: Place, address: str) -> None:
    status = (
        f"  status: {{commit: {{provider: github, project: shop/deploy, token: {{secret: gh}}, api: '{address}'}}}}\n"
    )
    more = status + "  secrets: {gh: {file: token}}\n"
    definition = place.following(more=more).definition
    loops = service(
        Definition(definition.source, place.root),
        place.places,
        say=lambda _text: None,
        target=LocalTarget(open_fleet=place.local),
        now=lambda: place.clock,
    )
    loops.once(interrupted=lambda: 0)


@pytest.fixture
def told(place: Place, stand_in: tuple[str, StandIn]) -> StandIn:
    (place.root / "token").write_text("t0ken\n")
    (place.root / "token").chmod(0o600)
    return stand_in[1]


def test_a_commit_that_was_applied_and_one_that_was_refused_are_told_once(
    place: Place, upstream: Upstream, stand_in: tuple[str, StandIn], told: StandIn
) -> None:
    good = upstream.publish(manifest(2))
    look(place, stand_in[0])
    look(place, stand_in[0])
    assert [(one["sha"], one["state"]) for one in told.statuses] == [(good, "success")]
    bad = upstream.publish(manifest(2).replace("replicas: 2", "replicsa: 2"))
    look(place, stand_in[0])
    assert [(one["sha"], one["state"]) for one in told.statuses[1:]] == [(bad, "failure")]
    assert told.statuses[1]["description"].startswith("fleet.yaml:7: unknown field 'replicsa'")
    assert len(told.statuses[1]["description"]) <= LONGEST_LINE
    assert "did you mean 'replicas'?" in told.comments[2]


def test_what_could_not_be_told_is_told_later_and_stops_nothing(
    place: Place, upstream: Upstream, stand_in: tuple[str, StandIn], told: StandIn
) -> None:
    told.refuse = {"statuses": 503}
    commit = upstream.publish(manifest(2))
    look(place, stand_in[0])
    assert len(place.running()) == 2
    assert told.statuses == []
    told.refuse = {}
    look(place, stand_in[0])
    assert [(one["sha"], one["state"]) for one in told.statuses] == [(commit, "success")]


def test_no_secret_is_in_anything_that_is_told(
    place: Place, upstream: Upstream, stand_in: tuple[str, StandIn], told: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "hunter2-hunter2")
    secret = manifest(1).replace("  groups:", "  secrets: {key: {env: SHOP_KEY}}\n  groups:")
    upstream.publish(secret.replace("replicas: 1", "replicas: 1, secretEnv: {KEY: key}"))
    look(place, stand_in[0])
    assert told.statuses
    assert "hunter2" not in json.dumps([told.statuses, told.comments])


def test_the_status_file_is_kept_current(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    loops = service(
        place.following(more="  status: {file: status.json}\n").definition,
        place.places,
        say=lambda _text: None,
        target=LocalTarget(open_fleet=place.local),
        now=lambda: place.clock,
    )
    loops.once(interrupted=lambda: 0)
    document = json.loads((place.root / "status.json").read_text())
    assert (document["lastAppliedRevision"], document["ready"]) == (commit, True)


def test_a_forge_that_is_away_is_an_error_with_its_address() -> None:
    with pytest.raises(FleetError, match=r"127\.0\.0\.1:9"):
        door("github", "http://127.0.0.1:9").set_status(Report(SHA, "pending", "x"))
