"""The application: which address gives which page or document, and what a page may ask to be done."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from fleet.core.desired import is_replica
from fleet.errors import FleetError, LockHeld, Refused, StalePlan, UsageError
from fleet.operate.dashboard import actions, facts, page_text
from fleet.operate.dashboard.access import Access, Denied, Person, Policy
from fleet.operate.dashboard.following import FleetFollower
from fleet.operate.dashboard.guard import LOGIN, MOST_BODY_BYTES, Guard
from fleet.operate.dashboard.live import ALL, Follower, Live, TooMany
from fleet.operate.dashboard.log_stream import LogStreams
from fleet.operate.dashboard.shown import shown
from fleet.operate.dashboard.verb_runs import Busy, VerbRuns
from fleet.operate.local_fleet import LocalFleet, known_fleets
from fleet.operate.metrics.backlog_watch import BacklogWatch

if TYPE_CHECKING:
    from fleet.settings import Settings

KEEP_ALIVE_SECONDS = 15.0
_STATUS: tuple[tuple[type[FleetError], int], ...] = (
    (UsageError, 400),
    (Busy, 503),
    (TooMany, 503),
    (LockHeld, 409),
    (StalePlan, 409),
    (Refused, 409),
)


class Dashboard:
    """Everything behind the addresses. ``app`` is what a server serves."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        *,
        only: str = "",
        watch_queues: bool = True,
        look_seconds: float = 1.0,
    ) -> None:
        """only: this fleet alone.  watch_queues: ask brokers what waits."""
        self._settings = settings
        self._only = only
        self._watch_queues = watch_queues
        self._access = Access(policy)
        self._live = Live(self._names, self._followed, look_seconds=look_seconds)
        self._logs = LogStreams()
        self._runs = VerbRuns(settings.home)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.app = Guard(
            Starlette(
                routes=self._routes(),
                lifespan=self._lifespan,
                exception_handlers={FleetError: _failed, Denied: _denied, 404: _missing, 405: _missing},
            ),
            self._access,
        )

    def let_go(self) -> None:
        """End every stream, so that a server need not wait for them. For any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._live.close()
        self._logs.close()

    def _routes(self) -> list[Route]:
        pages = [Route("/", self._fleets_page), Route("/fleets/{fleet}", self._fleet_page)]
        pages += [Route(f"/fleets/{{fleet}}/{name}", self._fleet_page) for name in page_text.TABS if name != "overview"]
        pages += [Route("/fleets/{fleet}/replicas/{replica}", self._replica_page)]
        of_fleet: list[tuple[str, Callable[[LocalFleet, Request], Any]]] = [
            ("history", lambda fleet, _: facts.history(fleet)),
            ("history/{number:int}", lambda fleet, request: facts.revision(fleet, request.path_params["number"])),
            ("events", lambda fleet, request: facts.events(fleet, last=_count(request, "last", 200))),
            ("rollout", lambda fleet, _: facts.rollout_now(fleet)),
            ("explain", lambda fleet, _: facts.explained(fleet)),
            ("logs", self._log_lines),
        ]
        return [
            *pages,
            Route("/static/{name}", self._static),
            Route(LOGIN, self._login_page),
            Route(LOGIN, self._log_in, methods=["POST"]),
            Route("/api/logout", self._log_out, methods=["POST"]),
            Route("/api/stream", self._stream),
            Route("/api/runs/{run}", self._run),
            Route("/api/fleets/{fleet}", self._whole),
            Route("/api/fleets/{fleet}/hour", self._hour),
            Route("/api/fleets/{fleet}/logs/stream", self._log_stream),
            *(Route(f"/api/fleets/{{fleet}}/{path}", self._reading(read)) for path, read in of_fleet),
            Route("/api/fleets/{fleet}/stacks", self._stacks, methods=["POST"]),
            Route("/api/fleets/{fleet}/plan", self._plan, methods=["POST"]),
            Route("/api/fleets/{fleet}/act", self._act, methods=["POST"]),
        ]

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._live.start()
        try:
            yield
        finally:
            self._close()

    # --- fleets

    def _names(self) -> list[str]:
        return [self._only] if self._only else known_fleets(self._settings.home)

    def _followed(self, name: str) -> FleetFollower:
        fleet = LocalFleet(name, settings=self._settings)
        watch = BacklogWatch(LocalFleet(name, settings=self._settings)) if self._watch_queues else None
        return FleetFollower(fleet, watch)

    def _named(self, request: Request) -> str:
        name: str = request.path_params["fleet"]
        if name not in self._names():
            raise Denied(404, f"there is no fleet {name!r}")
        return name

    # --- pages

    async def _fleets_page(self, request: Request) -> Response:
        return self._page(request, "fleets", "Fleets")

    async def _fleet_page(self, request: Request) -> Response:
        name, tab = self._named(request), request.url.path.split("/")[3:]
        page = tab[0] if tab else "overview"
        return self._page(request, page, f"{page_text.TABS[page]} of {name}", fleet=name)

    async def _replica_page(self, request: Request) -> Response:
        name, replica = self._named(request), request.path_params["replica"]
        if not is_replica(replica):
            raise Denied(404, "there is no such replica")
        return self._page(request, "replica", f"Replica {replica} of {name}", fleet=name, subject=replica)

    def _page(self, request: Request, name: str, title: str, *, fleet: str = "", subject: str = "") -> Response:
        person = _person(request)
        policy = self._access.policy
        text = page_text.page(
            name,
            title,
            fleet=fleet,
            subject=subject,
            person=person.name,
            mark=self._access.page_mark(person),
            actions=tuple(actions.ACTIONS) if policy.may_act else (),
            can_leave=bool(policy.tokens) and not policy.trust_header,
        )
        return HTMLResponse(text)

    async def _static(self, request: Request) -> Response:
        found = page_text.static(request.path_params["name"])
        if found is None:
            raise Denied(404, "there is no such file")
        return Response(found[0], media_type=found[1])

    async def _login_page(self, _request: Request) -> Response:
        return HTMLResponse(page_text.login_page())

    async def _log_in(self, request: Request) -> Response:
        form = parse_qs((await _body(request)).decode(errors="replace"))
        try:
            session = self._access.log_in(form.get("token", [""])[0].strip())
        except Denied as denied:
            return HTMLResponse(page_text.login_page(problem=denied.message), status_code=denied.status)
        answer = RedirectResponse("/", status_code=303)
        secure = self._access.policy.is_secure
        answer.set_cookie(self._access.cookie, session, httponly=True, samesite="strict", secure=secure, path="/")
        return answer

    async def _log_out(self, request: Request) -> Response:
        self._access.log_out(request.cookies)
        return JSONResponse({})

    # --- documents

    def _reading(self, read: Callable[[LocalFleet, Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            fleet = LocalFleet(self._named(request), settings=self._settings)
            return JSONResponse(shown(await asyncio.to_thread(read, fleet, request)))

        return answer

    def _log_lines(self, fleet: LocalFleet, request: Request) -> dict[str, Any]:
        lines = facts.log_lines(fleet, _log_names(request), last=_count(request, "last", 200))
        return {"replicas": facts.replicas_with_logs(fleet), "lines": lines}

    async def _whole(self, request: Request) -> Response:
        return JSONResponse(self._live.whole(self._named(request)))

    async def _hour(self, request: Request) -> Response:
        found = self._live.hour(self._named(request))
        return JSONResponse(found if found is not None else {"groups": {}})

    async def _run(self, request: Request) -> Response:
        run = self._runs.get(request.path_params["run"])
        if run is None:
            raise Denied(404, "there is no such run")
        return JSONResponse(shown(run.document()))

    # --- streams

    async def _stream(self, request: Request) -> Response:
        topic = request.query_params.get("fleet", ALL)
        if topic != ALL and topic not in self._names():
            raise Denied(404, f"there is no fleet {topic!r}")
        follower = self._live.begin(topic)
        return _streamed(follower, self._live.end)

    async def _log_stream(self, request: Request) -> Response:
        fleet = LocalFleet(self._named(request), settings=self._settings)
        return _streamed(self._logs.begin(fleet, _log_names(request)), self._logs.end)

    # --- what is done by a verb

    async def _stacks(self, request: Request) -> Response:
        name, asked = self._named(request), await _asked(request)
        words = actions.stacks_words(name, str(asked.get("replica")))
        run = await self._runs.ask(name, words, by=_person(request).by)
        return JSONResponse(shown(run.document()))

    async def _plan(self, request: Request) -> Response:
        self._check_acting()
        name, asked = self._named(request), await _asked(request)
        run = await self._runs.ask(name, actions.planning_words(name, asked), by=_person(request).by)
        return JSONResponse(shown(run.document()))

    async def _act(self, request: Request) -> Response:
        self._check_acting()
        name, asked = self._named(request), await _asked(request)
        run = self._runs.begin(name, actions.acting_words(name, asked), by=_person(request).by)
        return JSONResponse(shown(run.document()), status_code=202)

    def _check_acting(self) -> None:
        if not self._access.policy.may_act:
            raise Denied(403, "this dashboard only shows; it acts with --allow-actions")


def _person(request: Request) -> Person:
    person = request.scope.get("person")
    if not isinstance(person, Person):
        raise Denied(401, "a token is needed", needs_login=True)
    return person


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise Denied(413, f"longer than {MOST_BODY_BYTES} bytes") from None


async def _asked(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await _body(request))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError("the request is no JSON object")
    return document


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default


def _log_names(request: Request) -> tuple[str, ...]:
    return tuple(name for name in request.query_params.getlist("name") if name)


def _streamed(follower: Follower, end: Callable[[Follower], None]) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        try:
            yield "retry: 2000\n\n"
            while True:
                try:
                    text = await asyncio.wait_for(follower.next(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if text is None:
                    return
                yield f"data: {text}\n\n"
        finally:
            end(follower)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


async def _failed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    document = {"error": {"message": error.message, "hint": error.hint}}
    return JSONResponse(shown(document), status_code=status)


async def _denied(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Denied)
    return JSONResponse({"error": {"message": error.message, "hint": ""}}, status_code=error.status)


async def _missing(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return JSONResponse({"error": {"message": "there is no such page", "hint": ""}}, status_code=status)
