"""The one door to a cluster's API server: paths in, plain JSON values out, refusals as errors of fleet's own."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.backends.kubernetes.kinds import Kind
from fleet.core.text.suggest import did_you_mean
from fleet.errors import FleetError, Refused, Unreachable, UsageError

if TYPE_CHECKING:
    from kubernetes.client.api_client import ApiClient

FIELD_MANAGER = "fleet"
IN_CLUSTER = "in-cluster"
"""The context of a process in a pod: the account that the cluster gave it."""
WATCH_SECONDS = 5
"""The server ends a watch after so long; it is begun again where it ended."""
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_REFUSED = re.compile(r'cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)"(?: in API group "(?P<group>[^"]*)")?')
_LOST_SECONDS = 30.0
"""How long a watch tries to get back to a server that is away."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fleet lives. ``context``: a name in the kubeconfig, or ``in-cluster``."""

    context: str
    namespace: str

    def __str__(self) -> str:
        return f"namespace {self.namespace} of context {self.context}"


class ApiRefused(FleetError):
    """The API server said no. ``status``: the HTTP status; ``details``: of its answer."""

    def __init__(self, message: str, *, hint: str = "", status: int, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.details = dict(details or {})


class WatchExpired(Exception):
    """The server has forgotten where a watch stood: list again."""


class Cluster:
    """One namespace of one cluster. Raises Unreachable, ApiRefused or UsageError from every call."""

    def __init__(self, place: Place, *, timeout_seconds: float = 30.0, sleep: Callable[[float], None] = time.sleep):
        self.place = place
        self._sleep = sleep
        self._connection = _Connection(place, timeout_seconds)

    @property
    def namespace(self) -> str:
        """The namespace that all calls mean."""
        return self.place.namespace

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """One object, or None where there is none of that name."""
        try:
            return self._connection.json("GET", kind.path(self.namespace, name))
        except ApiRefused as error:
            if error.status == 404:
                return None
            raise

    def objects(self, kind: Kind, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """All objects of a kind with these labels; none where the cluster does not know the kind."""
        return self._listed(kind, labels)[0]

    def _listed(self, kind: Kind, labels: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
        try:
            answer = self._connection.json("GET", kind.path(self.namespace), labelSelector=_selector(labels))
        except ApiRefused as error:
            if error.status == 404:
                return [], ""
            raise
        items = [{"apiVersion": kind.api, "kind": kind.name, **one} for one in answer["items"]]
        return items, str(answer["metadata"].get("resourceVersion") or "")

    def apply(
        self,
        kind: Kind,
        document: Mapping[str, Any],
        *,
        dry_run: bool = False,
        force: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> dict[str, Any]:
        """Server-side apply; the object as it is then, or would be. Raises ApiRefused with status 409 on a conflict."""
        path = kind.path(self.namespace, document["metadata"]["name"])
        query = {"fieldManager": manager, "force": "true" if force else "false", **_dry(dry_run)}
        return self._connection.json("PATCH", path, body=json.dumps(document), content=_APPLY, **query)

    def merge(self, kind: Kind, name: str, patch: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        """A JSON merge patch."""
        path = kind.path(self.namespace, name)
        return self._connection.json("PATCH", path, body=dict(patch), content=_MERGE, fieldManager=manager)

    def create(self, kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object. Raises ApiRefused with status 409 where one of that name is there."""
        return self._connection.json("POST", kind.path(self.namespace), body=dict(document), fieldManager=FIELD_MANAGER)

    def replace(self, kind: Kind, document: Mapping[str, Any]) -> dict[str, Any]:
        """Write a whole object; 409 where it has changed since it was read."""
        path = kind.path(self.namespace, document["metadata"]["name"])
        return self._connection.json("PUT", path, body=dict(document), fieldManager=FIELD_MANAGER)

    def delete(self, kind: Kind, name: str) -> bool:
        """Remove an object and what belongs to it; False where there was none."""
        try:
            self._connection.json("DELETE", kind.path(self.namespace, name), body={"propagationPolicy": "Background"})
        except ApiRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    # --- streams

    def changes(self, kind: Kind, labels: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
        """All objects with these labels, now and again after each change, or after a while without one.

        A watch that ends or breaks is taken up where it stood; where the server has forgotten that, by a new list.
        """
        while True:
            items, version = self._reached(lambda: self._listed(kind, labels))
            seen = {one["metadata"]["name"]: one for one in items}
            yield list(seen.values())
            try:
                for _ in self._watched(kind, labels, seen, version):
                    yield list(seen.values())
            except WatchExpired:
                continue

    def _watched(
        self, kind: Kind, labels: Mapping[str, str], seen: dict[str, dict[str, Any]], version: str
    ) -> Iterator[None]:
        while True:
            for event in self._reached_events(kind, labels, version):
                one = event["object"]
                if event["type"] == "ERROR":
                    raise WatchExpired
                version = one["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    seen.pop(one["metadata"]["name"], None)
                else:
                    seen[one["metadata"]["name"]] = {"apiVersion": kind.api, "kind": kind.name, **one}
                yield
            yield

    def _reached_events(self, kind: Kind, labels: Mapping[str, str], version: str) -> Iterator[dict[str, Any]]:
        """Events until the watch ends, for whatever reason; a watch that never began is tried again."""
        query = {
            "watch": "true",
            "labelSelector": _selector(labels),
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            "allowWatchBookmarks": "true",
        }

        def begin() -> Iterator[bytes]:
            return self._connection.lines(kind.path(self.namespace), read_seconds=WATCH_SECONDS + 15.0, **query)

        try:
            lines = self._reached(begin)
        except ApiRefused as error:
            if error.status == 410:
                raise WatchExpired from error
            raise
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:  # cut short when the connection broke
                return

    def _reached(self, call: Callable[[], Any]) -> Any:
        """The answer of a call that is tried again while the server is away, for a while."""
        began, pause = time.monotonic(), 0.1
        while True:
            try:
                return call()
            except Unreachable:
                if time.monotonic() - began > _LOST_SECONDS:
                    raise
                self._sleep(pause)
                pause = min(2.0, pause * 2)

    def log_lines(self, pod: str, **query: str) -> Iterator[bytes]:
        """Lines of a pod's log; ``query``: as the API has it (tailLines, sinceSeconds, follow, timestamps)."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        return self._connection.lines(
            path, read_seconds=None if query.get("follow") else self._connection.timeout_seconds, **query
        )

    def run(self, pod: str, command: tuple[str, ...], *, timeout_seconds: float = 15.0) -> str:
        """What a command prints that runs in a pod's first container. Raises ApiRefused where it may not."""
        return self._connection.run(pod, command, timeout_seconds=timeout_seconds)


class _Connection:
    """Requests to one API server, and its refusals as errors of fleet's own."""

    def __init__(self, place: Place, timeout_seconds: float) -> None:
        self.place = place
        self.timeout_seconds = timeout_seconds
        self.client = _connected(place)

    def json(self, method: str, path: str, *, body: Any = None, content: str = "", **query: str) -> dict[str, Any]:
        import urllib3

        timeout = (self.timeout_seconds, self.timeout_seconds)
        response = self.raw(method, path, body, content, query, timeout=timeout)
        try:
            answer: dict[str, Any] = json.loads(response.read() or b"{}")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self.away(error) from error
        finally:
            response.release_conn()
        return answer

    def raw(self, method: str, path: str, body: Any, content: str, query: Mapping[str, str], *, timeout: Any) -> Any:
        import urllib3
        from kubernetes.config import ConfigException

        headers = {"Accept": "application/json", "Content-Type": content or "application/json"}
        try:
            request = self.client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self.client.call_api(*request, _request_timeout=timeout).response
            if response.status >= 400:
                text = response.read().decode("utf-8", "replace")
                response.release_conn()
                raise self.refusal(response.status, text, method, path)
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise self.away(error) from error
        return response

    @property
    def _whose(self) -> str:
        return f"the cluster of context {self.place.context!r}"

    def away(self, error: Exception) -> Unreachable:
        reason = str(getattr(error, "reason", "") or error).partition("\n")[0]
        host = self.client.configuration.host
        message = f"{self._whose} does not answer at {host}: {reason}"
        return Unreachable(message, hint=f"try `kubectl --context {self.place.context} version`")

    def refusal(self, status: int, text: str, method: str, path: str) -> FleetError:
        try:
            answer = json.loads(text)
            said, details = str(answer["message"]), answer.get("details") or {}
        except (ValueError, KeyError, TypeError):
            said, details = text.strip().partition("\n")[0] or f"{method} {path}: HTTP {status}", {}
        if status == 401:
            hint = f"log in again, then try `kubectl --context {self.place.context} auth whoami`"
            return Unreachable(
                f"the cluster of context {self.place.context!r} takes none of these credentials", hint=hint
            )
        if status == 403 and (found := _REFUSED.search(said)):
            right = f"{found['verb']} {found['resource']}" + (f".{found['group']}" if found["group"] else "")
            message = f"context {self.place.context!r} may not {right} in namespace {self.place.namespace}"
            return ApiRefused(message, hint=_rule(found), status=status, details=details)
        if status == 404 and details.get("kind") == "namespaces":
            hint = f"kubectl --context {self.place.context} create namespace {self.place.namespace}"
            return Refused(f"context {self.place.context!r} has no namespace {self.place.namespace!r}", hint=hint)
        if status >= 500 or status == 429:
            return Unreachable(
                f"the cluster of context {self.place.context!r} answers {status}: {said}", hint="try again"
            )
        return ApiRefused(said, status=status, details=details)

    def lines(self, path: str, *, read_seconds: float | None, **query: str) -> Iterator[bytes]:
        import urllib3

        response = self.raw("GET", path, None, "", query, timeout=(self.timeout_seconds, read_seconds))

        def received() -> Iterator[bytes]:
            rest = b""
            try:
                for chunk in (
                    response.stream(1 << 16, decode_content=True) if not response.chunked else response.stream()
                ):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from whole
                if rest:
                    yield rest
            except urllib3.exceptions.HTTPError:
                return  # it broke; whoever watches goes on from what came before
            finally:
                response.close()

        return received()

    def run(self, pod: str, command: tuple[str, ...], *, timeout_seconds: float = 15.0) -> str:
        """What a command prints that runs in a pod's first container. Raises ApiRefused where it may not."""
        import websocket
        from kubernetes.stream.ws_client import WSClient, get_websocket_url

        query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "false")]
        path = f"/api/v1/namespaces/{self.place.namespace}/pods/{pod}/exec"
        _, url, headers, *_ = self.client.param_serialize(
            "GET", path, query_params=query, header_params={}, auth_settings=["BearerToken"]
        )
        headers["sec-websocket-protocol"] = "v4.channel.k8s.io"
        configuration = self.client.configuration
        try:
            stream = WSClient(configuration, get_websocket_url(url), headers, capture_all=True)
        except websocket.WebSocketBadStatusException as error:
            body = (error.resp_body or b"").decode("utf-8", "replace")
            raise self.refusal(error.status_code, body, "create", path) from error
        except (websocket.WebSocketException, OSError) as error:
            raise self.away(error) from error
        try:
            stream.run_forever(timeout=timeout_seconds)
            return str(stream.read_all())
        finally:
            stream.close()
            stream.sock.shutdown()  # the library leaves the socket open where the server closed first


def _rule(found: re.Match[str]) -> str:
    resource, group = found["resource"], found["group"] or ""
    return f'a Role needs: {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{found["verb"]}"]}}'


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _connected(place: Place) -> ApiClient:
    """A client for a context, which connects with the first call. Kubeconfig as kubectl finds it, plug-ins as well."""
    try:
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
    except ImportError as error:
        raise FleetError(
            "the library for Kubernetes is missing", hint="pip install 'workerfleet[kubernetes]'"
        ) from error
    configuration = Configuration()
    try:
        if place.context == IN_CLUSTER:
            load_incluster_config(client_configuration=configuration)
        else:
            load_kube_config(_kubeconfig(), place.context, configuration, persist_config=False)
    except ConfigException as error:
        raise _no_context(place, error) from error
    configuration.retries = False
    client: ApiClient = ApiClient(configuration)
    return client


def _kubeconfig() -> str:
    """As kubectl finds it; the library looks once, when it is imported."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _no_context(place: Place, error: Exception) -> UsageError:
    from kubernetes.config import ConfigException, list_kube_config_contexts

    if place.context == IN_CLUSTER:
        return UsageError("this process runs in no pod", hint="name a context of the kubeconfig with --context")
    try:
        known = [one["name"] for one in list_kube_config_contexts(_kubeconfig())[0]]
    except ConfigException:
        hint = "set KUBECONFIG, or write ~/.kube/config"
        return UsageError(f"context {place.context!r} cannot be looked up: {error}", hint=hint)
    if place.context in known:
        return UsageError(f"context {place.context!r} of the kubeconfig cannot be used: {error}")
    hint = did_you_mean(place.context, known) or f"there are: {', '.join(sorted(known)) or 'none'}"
    return UsageError(f"the kubeconfig has no context {place.context!r}", hint=hint)
