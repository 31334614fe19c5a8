"""A small API server in this process: enough of Kubernetes for the contract of fleet's backend.

It has server-side apply with owners of fields, dry runs, lists and watches by label, conflicts, rights that may be
taken, Deployments that come to life as ReplicaSets and pods, logs, and exec. It does not have: validation by schema,
defaults (but the one of `replicas`), admission, subresources, finalizers, KEDA, a scheduler, time. What depends on
those is shown by the same suite on the real server, `make test-kubernetes`.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from fleet.backends.kubernetes.kinds import DEPLOYMENT, JOB, LEASE, OWNED, POD, REPLICA_SET, Kind
from fleet.backends.kubernetes.names import DELETION_COST
from tests.backends.kubernetes.fields import Conflict, Owners, applied, managed_fields, updated

Object = dict[str, Any]
Key = tuple[str, str, str]
BEGAN = "2026-11-21T05:00:00Z"


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.document = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
            "details": details,
        }
        self.code = code


@dataclass
class Stored:
    """One object and who owns its fields."""

    value: Object
    owners: Owners = field(default_factory=dict)


def _healthy(_pod: str, _command: list[str]) -> str:
    row = {"condition": "ready", "pid": 7, "slots": 1, "busy": 0, "processed": 5, "failed": 1, "tasks": []}
    return json.dumps({"replicas": [row]})


class StandIn:
    """The server. ``with StandIn() as api``; knobs are its fields."""

    has_custom_resources = True

    def __init__(self) -> None:
        self.kinds: dict[str, Kind] = {kind.plural: kind for kind in (*OWNED, POD, REPLICA_SET, LEASE)}
        self.namespaces = {"shop"}
        self.broken_images: set[str] = set()
        self.failing_images: set[str] = set()
        """The pods of a Job with one of them end with exit code 1."""
        self.forbidden: set[tuple[str, str]] = set()
        self.logs: dict[str, list[str]] = {}
        self.run: Callable[[str, list[str]], str] = _healthy
        self.requests: list[str] = []
        self.is_watched_closely = False
        """The controllers go on only once somebody has seen that they noticed a change."""
        self._seen_version = 0
        self.changed = threading.Condition(threading.RLock())
        self._stored: dict[Key, Stored] = {}
        self._events: list[tuple[int, str, Key, Object]] = []
        self._version = 0
        self._oldest = 0
        self._breaks = 0
        self._ends = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True),
            threading.Thread(target=self._bring_to_life, daemon=True),
        ]

    def __enter__(self) -> StandIn:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.changed:
            self._ends = True
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def write_kubeconfig(self, path: Path, *, context: str = "here") -> Path:
        """A kubeconfig with this context, and another one that is the current one and leads nowhere."""
        contexts = [
            {"name": context, "context": {"cluster": "own", "user": "me"}},
            {"name": "elsewhere", "context": {"cluster": "none", "user": "me"}},
        ]
        clusters = [
            {"name": "own", "cluster": {"server": self.url}},
            {"name": "none", "cluster": {"server": "http://127.0.0.1:1"}},
        ]
        users = [{"name": "me", "user": {"token": "t"}}]
        head = {"apiVersion": "v1", "kind": "Config", "current-context": "elsewhere"}
        path.write_text(yaml.safe_dump({**head, "contexts": contexts, "clusters": clusters, "users": users}))
        return path

    # --- for tests

    def get(self, plural: str, name: str, namespace: str = "shop") -> Object | None:
        with self.changed:
            found = self._stored.get((plural, namespace, name))
            return None if found is None else self._shown(found)

    def names(self, plural: str, namespace: str = "shop") -> list[str]:
        with self.changed:
            return sorted(name for one, where, name in self._stored if (one, where) == (plural, namespace))

    def update(self, plural: str, name: str, patch: Object, *, manager: str) -> None:
        """A merge patch, as another client or controller writes."""
        with self.changed:
            self._merged((plural, "shop", name), patch, manager=manager, dry=False)

    def break_watches(self) -> None:
        """Every watch ends in the middle of a line."""
        with self.changed:
            self._breaks += 1
            self.changed.notify_all()

    def forget_history(self) -> None:
        """Watches that stood in the past must list again."""
        with self.changed:
            self._oldest = self._version

    # --- requests

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, content: str) -> Object:
        key = self.key_of(path)
        plural, namespace, name = key
        verb = _verb(method, name, query)
        dry = query.get("dryRun") == "All"
        with self.changed:
            self.requests.append(f"{verb} {plural}{'/' + name if name else ''}{' (dry run)' if dry else ''}")
            self.check_right(verb, plural, namespace)
            if method == "GET":
                return self._listed(key, query) if not name else self._shown(self._found(key))
            if namespace not in self.namespaces:
                message = f'namespaces "{namespace}" not found'
                raise Refusal(404, "NotFound", message, kind="namespaces", name=namespace)
            manager = query.get("fieldManager", "unknown")
            if method == "PATCH" and content == "application/apply-patch+yaml":
                return self._applied(key, body, manager=manager, force=query.get("force") == "true", dry=dry)
            if method == "PATCH":
                return self._merged(key, body, manager=manager, dry=dry)
            if method == "POST":
                return self._created((plural, namespace, body["metadata"]["name"]), body, manager=manager)
            if method == "PUT":
                return self._replaced(key, body, manager=manager)
            return self._deleted(key)

    def key_of(self, path: str) -> Key:
        """Of /api/v1/namespaces/NS/PLURAL[/NAME], or /apis/GROUP/VERSION/…."""
        words = [unquote(word) for word in path.strip("/").split("/")]
        words = words[2:] if words[0] == "api" else words[3:]
        if len(words) < 3 or words[0] != "namespaces" or words[2] not in self.kinds:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return words[2], words[1], words[3] if len(words) > 3 else ""

    def check_right(self, verb: str, plural: str, namespace: str) -> None:
        if (verb, plural) in self.forbidden:
            group = self.kinds[plural.partition("/")[0]].group
            message = (
                f'{plural} is forbidden: User "me" cannot {verb} resource "{plural}" in API group "{group}"'
                f' in the namespace "{namespace}"'
            )
            raise Refusal(403, "Forbidden", message, kind=plural)

    def _found(self, key: Key) -> Stored:
        if key not in self._stored:
            raise Refusal(404, "NotFound", f'{key[0]} "{key[2]}" not found', kind=key[0], name=key[2])
        return self._stored[key]

    def _listed(self, key: Key, query: dict[str, str]) -> Object:
        plural, namespace, _ = key
        self._saw(plural, self._version)
        found = [one for (kind, where, _), one in sorted(self._stored.items()) if (kind, where) == (plural, namespace)]
        items = [self._shown(one) for one in found if matches(one.value, query.get("labelSelector", ""))]
        for one in items:  # as in the real server's lists
            one.pop("apiVersion"), one.pop("kind")
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self._version)}, "items": items}

    def _saw(self, plural: str, version: int) -> None:
        if plural == DEPLOYMENT.plural:
            self._seen_version = max(self._seen_version, version)
            self.changed.notify_all()

    def _shown(self, stored: Stored) -> Object:
        value = copy.deepcopy(stored.value)
        value["metadata"]["managedFields"] = managed_fields(stored.owners)
        return value

    def _applied(self, key: Key, body: Object, *, manager: str, force: bool, dry: bool) -> Object:
        stored = self._stored.get(key) or Stored(self._new(key))
        owners = copy.deepcopy(stored.owners)
        try:
            after = applied(stored.value, owners, body, manager=manager, force=force)
        except Conflict as conflict:
            causes = [
                {
                    "reason": "FieldManagerConflict",
                    "message": f'conflict with "{other}" using {stored.value["apiVersion"]}',
                    "field": "." + ".".join(path),
                }
                for other, path in conflict.found
            ]
            message = f"Apply failed with {len(causes)} conflict(s)"
            raise Refusal(409, "Conflict", message, causes=causes) from conflict
        return self._stored_as(key, after, owners, dry=dry)

    def _merged(self, key: Key, patch: Object, *, manager: str, dry: bool) -> Object:
        stored = self._found(key)
        owners, after = copy.deepcopy(stored.owners), merge(copy.deepcopy(stored.value), patch)
        updated(stored.value, owners, after, manager=manager)
        return self._stored_as(key, after, owners, dry=dry)

    def _created(self, key: Key, body: Object, *, manager: str) -> Object:
        if key in self._stored:
            raise Refusal(409, "AlreadyExists", f'{key[0]} "{key[2]}" already exists', kind=key[0], name=key[2])
        owners: Owners = {}
        new = self._new(key)
        after = merge(copy.deepcopy(new), body)
        updated(new, owners, after, manager=manager)
        return self._stored_as(key, after, owners)

    def _replaced(self, key: Key, body: Object, *, manager: str) -> Object:
        stored = self._found(key)
        if body["metadata"].get("resourceVersion") != stored.value["metadata"]["resourceVersion"]:
            message = (
                f'{key[0]} "{key[2]}": the object has been modified; please apply your changes to the latest version'
            )
            raise Refusal(409, "Conflict", message, kind=key[0], name=key[2])
        owners, after = copy.deepcopy(stored.owners), merge({}, body)  # drops nulls
        updated(stored.value, owners, after, manager=manager)
        return self._stored_as(key, after, owners)

    def _deleted(self, key: Key) -> Object:
        gone = self._found(key)
        del self._stored[key]
        self._version += 1
        gone.value["metadata"]["resourceVersion"] = str(self._version)
        self._event("DELETED", key, gone)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _new(self, key: Key) -> Object:
        kind = self.kinds[key[0]]
        uid = hashlib.sha256(repr((key, self._version)).encode()).hexdigest()[:12]
        metadata = {"name": key[2], "namespace": key[1], "uid": uid, "creationTimestamp": BEGAN}
        return {"apiVersion": kind.api, "kind": kind.name, "metadata": metadata}

    def _stored_as(self, key: Key, after: Object, owners: Owners, *, dry: bool = False) -> Object:
        before = self._stored.get(key)
        metadata = after["metadata"]
        metadata.pop("managedFields", None)
        if key[0] == DEPLOYMENT.plural:
            after["spec"].setdefault("replicas", 1)
        if before is None or before.value.get("spec") != after.get("spec"):
            metadata["generation"] = int(metadata.get("generation") or 0) + 1
        stored = Stored(after, owners)
        if dry:
            return self._shown(stored)
        if before is None or before.value != after or before.owners != owners:
            self._version += 1
            metadata["resourceVersion"] = str(self._version)
            self._stored[key] = stored
            self._event("ADDED" if before is None else "MODIFIED", key, stored)
        return self._shown(stored)

    def _event(self, kind: str, key: Key, stored: Stored) -> None:
        self._events.append((self._version, kind, key, self._shown(stored)))
        self.changed.notify_all()

    def watched(self, path: str, query: dict[str, str]) -> Iterator[bytes | None]:
        """Lines of a watch; None where it is to break."""
        plural, namespace, _ = self.key_of(path)
        with self.changed:
            self.requests.append(f"watch {plural}")
            self.check_right("watch", plural, namespace)
            seen, breaks = int(query.get("resourceVersion") or 0), self._breaks
            if seen < self._oldest:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                yield json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n"
                return
        while True:
            with self.changed:
                fresh = [event for event in self._events if event[0] > seen]
                if not fresh and self._breaks == breaks and not self._ends:
                    waited = self.changed.wait(float(query.get("timeoutSeconds") or 30))
                    fresh = [event for event in self._events if event[0] > seen]
                    if not waited and not fresh:
                        return
                if self._breaks != breaks:
                    yield None
                if self._ends:
                    return
            for version, kind, key, value in fresh:
                seen = version
                if key[:2] == (plural, namespace) and matches(value, query.get("labelSelector", "")):
                    yield json.dumps({"type": kind, "object": value}).encode() + b"\n"
                    with self.changed:
                        self._saw(plural, version)

    # --- what the cluster's controllers do

    def _bring_to_life(self) -> None:
        while True:
            with self.changed:
                if self._ends:
                    return
                if not any(self._next_step()):
                    self.changed.wait()

    def _next_step(self) -> Iterator[bool]:
        """Reconcile every Deployment; true for each write."""
        deployments = [(key, one) for key, one in self._stored.items() if key[0] == DEPLOYMENT.plural]
        for key, stored in sorted(deployments, key=lambda pair: pair[0]):
            yield from self._reconciled(key, stored.value)
        owners = {key[2] for key, _ in deployments}
        for key, stored in [(key, one) for key, one in sorted(self._stored.items()) if key[0] == JOB.plural]:
            owners.add(key[2])
            yield from self._job_run(key, stored.value)
        orphans = [
            key
            for key, one in self._stored.items()
            if key[0] in (POD.plural, REPLICA_SET.plural)
            and one.value["metadata"]["annotations"]["owner"] not in owners
        ]
        for key in orphans:
            self._deleted(key)
            yield True

    def _job_run(self, key: Key, job: Object) -> Iterator[bool]:
        """Its pod ends at once, in an order: the pod first, then what the Job says of it."""
        pod = (POD.plural, key[1], f"{key[2]}-00000")
        template = job["spec"]["template"]
        image = template["spec"]["containers"][0]["image"]
        if image in self.broken_images or job["spec"].get("suspend"):
            return
        works = image not in self.failing_images
        if pod not in self._stored:
            code = 0 if works else 1
            container = {"name": "worker", "state": {"terminated": {"exitCode": code}}, "restartCount": 0}
            status = {"phase": "Succeeded" if works else "Failed", "conditions": [], "containerStatuses": [container]}
            self._write(pod, key[2], template["metadata"], {"spec": template["spec"], "status": status})
            yield True
        if "status" not in job:
            verdict = {"type": "Complete" if works else "Failed", "status": "True"}
            said = verdict if works else {**verdict, "message": "Job has reached the specified backoff limit"}
            status = {"conditions": [said]}
            self._stored_as(key, {**copy.deepcopy(job), "status": status}, self._stored[key].owners)
            yield True

    def _reconciled(self, key: Key, deployment: Object) -> Iterator[bool]:
        template, wanted = deployment["spec"]["template"], int(deployment["spec"]["replicas"])
        text = json.dumps(template, sort_keys=True)
        name = f"{key[2]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        generation, before = deployment["metadata"]["generation"], deployment.get("status")
        if before is not None and before["observedGeneration"] != generation:  # what it said last stays for a moment
            updated = sum(one[0] == POD.plural and one[2].startswith(name) for one in self._stored)
            seen = {**before, "observedGeneration": generation, "updatedReplicas": updated}
            self._stored_as(key, {**copy.deepcopy(deployment), "status": seen}, self._stored[key].owners)
            if self.is_watched_closely:
                self.changed.wait_for(lambda: self._seen_version >= self._version or self._ends)
            yield True
        replica_set = (REPLICA_SET.plural, key[1], name)
        if replica_set not in self._stored:
            self._write(replica_set, key[2], template["metadata"], {"spec": {"template": template}})
            yield True
        image = template["spec"]["containers"][0]["image"]
        works = image not in self.broken_images
        own = sorted(one for one in self._stored if one[0] == POD.plural and self._owner(one) == key[2])
        new = [one for one in own if one[2].startswith(name)]
        old = [one for one in own if one not in new]
        free = [number for number in range(wanted) if (POD.plural, key[1], f"{name}-{number:05x}") not in self._stored]
        for number in free[: max(0, wanted - len(new))]:
            pod = (POD.plural, key[1], f"{name}-{number:05x}")
            status = _pod_status(works, image)
            self._write(pod, key[2], template["metadata"], {"spec": template["spec"], "status": status})
            yield True
        cheapest = sorted(new, key=self._deletion_cost)
        for pod in cheapest[: max(0, len(new) - wanted)] + (old if works else []):
            self._deleted(pod)
            yield True
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": wanted + (0 if works else len(old)),
            "updatedReplicas": wanted,
            "availableReplicas": wanted if works else len(old),
            "conditions": [] if works else [_gave_up(name)],
        }
        if deployment.get("status") != status:
            self._stored_as(key, {**copy.deepcopy(deployment), "status": status}, self._stored[key].owners)
            yield True

    def _deletion_cost(self, pod: Key) -> int:
        return int(self._stored[pod].value["metadata"]["annotations"].get(DELETION_COST) or 0)

    def _owner(self, key: Key) -> str:
        return str(self._stored[key].value["metadata"]["annotations"]["owner"])

    def _write(self, key: Key, owner: str, metadata: Object, more: Object) -> None:
        new = self._new(key)
        new["metadata"]["labels"] = metadata["labels"]
        new["metadata"]["annotations"] = {**metadata.get("annotations", {}), "owner": owner}
        self._stored_as(key, copy.deepcopy({**new, **more}), {("kube-controller-manager", "Update"): {("spec",)}})


def _pod_status(works: bool, image: str) -> Object:
    ready = {"type": "Ready", "status": "True" if works else "False"}
    state = (
        {"running": {"startedAt": BEGAN}} if works else {"waiting": {"reason": "ImagePullBackOff", "message": image}}
    )
    containers = [{"name": "worker", "state": state, "restartCount": 0}]
    return {"phase": "Running" if works else "Pending", "conditions": [ready], "containerStatuses": containers}


def _gave_up(name: str) -> Object:
    message = f'ReplicaSet "{name}" has timed out progressing.'
    return {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message}


def matches(value: Object, selector: str) -> bool:
    labels = value["metadata"].get("labels") or {}
    return all(labels.get(name) == text for name, _, text in (one.partition("=") for one in selector.split(",") if one))


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def _verb(method: str, name: str, query: dict[str, str]) -> str:
    if method == "GET":
        return "get" if name else "watch" if query.get("watch") == "true" else "list"
    return {"PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}[method]


# --- HTTP


def _handler(api: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            given = parse_qs(parts.query)
            query = {name: values[0] for name, values in given.items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                if parts.path.endswith("/exec"):
                    self._exec(parts.path.split("/")[-2], given.get("command", []))
                elif parts.path.endswith("/log"):
                    self._log(parts.path.split("/")[-2], query)
                elif query.get("watch") == "true":
                    self._chunks(api.watched(parts.path, query))
                else:
                    self._json(200, api.answer(self.command, parts.path, query, body, self.headers["Content-Type"]))
            except Refusal as refusal:
                self._json(refusal.code, refusal.document)

        do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def _json(self, code: int, document: Any) -> None:
            data = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _chunks(self, lines: Iterator[bytes | None]) -> None:
            first = next(lines, b"")
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                self._send(chain([first], lines))
            except (BrokenPipeError, ConnectionResetError):  # whoever watched has gone
                self.close_connection = True

        def _send(self, lines: Iterator[bytes | None]) -> None:
            for line in lines:
                if line is None:
                    self.wfile.write(b'20\r\n{"type": "MODI')  # cut short
                    self.close_connection = True
                    return
                if line:
                    self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def _log(self, pod: str, query: dict[str, str]) -> None:
            with api.changed:
                api.check_right("get", "pods/log", "shop")
                lines = list(api.logs.get(pod, []))
            if "tailLines" in query:
                lines = lines[-int(query["tailLines"]) :]
            self._chunks(iter([f"{line}\n".encode() for line in lines]))

        def _exec(self, pod: str, command: list[str]) -> None:
            with api.changed:
                api.check_right("create", "pods/exec", "shop")
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            self.send_header("Sec-WebSocket-Accept", accept)
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.end_headers()
            self.wfile.write(_frame(2, b"\x01" + api.run(pod, command).encode()))
            self.wfile.write(_frame(2, b'\x03{"status":"Success"}'))
            self.wfile.write(_frame(8, struct.pack(">H", 1000)))
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _frame(opcode: int, data: bytes) -> bytes:
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
    return bytes([0x80 | opcode]) + length + data
