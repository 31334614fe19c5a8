"""A real kube-apiserver with etcd and the controllers of Deployments; only the kubelet is played.

Between it and fleet stands a small proxy that can cut watches. There are no nodes: pods are made ready, or refused
their image, by a thread that writes their status.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from fleet.backends.kubernetes.kinds import LEASE, OWNED, POD, REPLICA_SET, Kind
from tests.conftest import eventually
from tests.servers import free_port

ADMIN, USER = "admin-token", "user-token"
NAMESPACE = "shop"
_MISSING = ("policy/v1", "keda.sh/v1alpha1")
_KINDS: dict[str, Kind] = {kind.plural: kind for kind in (*OWNED, POD, REPLICA_SET, LEASE)}
_VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "bind"]
_BEGAN = "2026-11-21T05:00:00Z"


class RealServer:
    """``with RealServer(folder of programs) as server``; it takes some seconds to start."""

    has_custom_resources = False
    """Version 1.20, built with a Go of 1.18 or newer, crashes where it decodes one: its JSON library reads Go's maps by
    their layout in memory, which has changed."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.broken_images: set[str] = set()
        self.failing_images: set[str] = set()
        self.forbidden: set[tuple[str, str]] = _Forbidden(self)
        self._folder = tempfile.TemporaryDirectory(prefix="fleet-kubernetes-")
        self._port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ends = threading.Event()
        self._watches: set[Any] = set()
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._proxy.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True),
            threading.Thread(target=self._play_kubelet, daemon=True),
        ]

    def __enter__(self) -> RealServer:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        if self._threads[0].is_alive():
            self._proxy.shutdown()
        self._proxy.server_close()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._folder.cleanup()

    # --- as tests steer it

    def write_kubeconfig(self, path: Path) -> Path:
        contexts = [
            {"name": "here", "context": {"cluster": "own", "user": "me"}},
            {"name": "elsewhere", "context": {"cluster": "none", "user": "me"}},
        ]
        clusters = [
            {"name": "own", "cluster": {"server": f"http://127.0.0.1:{self._proxy.server_port}"}},
            {"name": "none", "cluster": {"server": "http://127.0.0.1:1"}},
        ]
        users = [{"name": "me", "user": {"token": USER}}]
        head = {"apiVersion": "v1", "kind": "Config", "current-context": "elsewhere"}
        path.write_text(yaml.safe_dump({**head, "contexts": contexts, "clusters": clusters, "users": users}))
        return path

    def get(self, plural: str, name: str) -> dict[str, Any] | None:
        status, answer = self.ask("GET", _KINDS[plural].path(NAMESPACE, name))
        return answer if status == 200 else None

    def names(self, plural: str) -> list[str]:
        """Of objects that are not going already."""
        _, answer = self.ask("GET", _KINDS[plural].path(NAMESPACE))
        items = [one["metadata"] for one in answer.get("items", ())]
        own = [one["name"] for one in items if "deletionTimestamp" not in one]
        return sorted(name for name in own if name not in ("kube-root-ca.crt", "default"))

    def update(self, plural: str, name: str, patch: dict[str, Any], *, manager: str) -> None:
        path = f"{_KINDS[plural].path(NAMESPACE, name)}?fieldManager={quote(manager)}"
        self.must("PATCH", path, patch, content="application/merge-patch+json")

    def break_watches(self) -> None:
        for connection in list(self._watches):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    # --- requests of an administrator

    def ask(
        self, method: str, path: str, body: Any = None, *, content: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        connection = self.connection()
        try:
            headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": content}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read()
            try:
                return response.status, json.loads(text or b"{}")
            except ValueError:
                return response.status, {"text": text.decode("utf-8", "replace")}
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self._port, context=context, timeout=60)

    def must(self, method: str, path: str, body: Any = None, **more: str) -> dict[str, Any]:
        status, answer = self.ask(method, path, body, **more)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    # --- starting

    def _start(self) -> None:
        folder = Path(self._folder.name)
        key = folder / "key.pem"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n{USER},me,me\n')
        etcd, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self._run(
            *("etcd", "--data-dir", folder / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--unsafe-no-fsync"),
            *("--initial-cluster", f"default={peer}"),
        )
        self._run(
            *(self.programs / "kube-apiserver", "--etcd-servers", etcd, "--secure-port", str(self._port)),
            *("--bind-address", "127.0.0.1", "--cert-dir", folder / "certs", "--authorization-mode", "RBAC"),
            *("--token-auth-file", folder / "tokens.csv", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--service-account-issuer", "https://localhost", "--service-account-key-file", key),
            *("--service-account-signing-key-file", key, "--disable-admission-plugins", "ServiceAccount"),
        )
        eventually(self._is_up, within=300)
        self._start_controllers(folder)
        self._prepare()
        for thread in self._threads:
            thread.start()

    def _run(self, *command: object) -> None:
        log = (Path(self._folder.name) / f"{Path(str(command[0])).name}.log").open("wb")
        with log:
            self._processes.append(subprocess.Popen([str(word) for word in command], stdout=log, stderr=log))

    def _is_up(self) -> bool:
        ended = [process.args for process in self._processes if process.poll() is not None]
        logs = {path.name: path.read_text()[-2000:] for path in Path(self._folder.name).glob("*.log")}
        assert not ended, f"{ended} ended: {logs}"
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/readyz")[0] == 200
        return False

    def _start_controllers(self, folder: Path) -> None:
        user = {"token": ADMIN}
        cluster = {"server": f"https://127.0.0.1:{self._port}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "own",
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "admin"}}],
            "clusters": [{"name": "own", "cluster": cluster}],
            "users": [{"name": "admin", "user": user}],
        }
        path = folder / "controllers.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        self._run(
            *(self.programs / "kube-controller-manager", "--kubeconfig", path, "--leader-elect=false", "--port=0"),
            *("--secure-port", str(free_port()), "--bind-address", "127.0.0.1", "--cert-dir", folder / "controllers"),
            "--controllers=deployment,replicaset,job,garbagecollector",
        )

    def _prepare(self) -> None:
        self.must("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        self.grant()
        subject = {"kind": "User", "name": "me", "apiGroup": "rbac.authorization.k8s.io"}
        role = {"kind": "ClusterRole", "name": "fleet", "apiGroup": "rbac.authorization.k8s.io"}
        binding = {"metadata": {"name": "fleet"}, "subjects": [subject], "roleRef": role}
        self.must("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)

    def reset(self) -> None:
        """As new: nothing in the namespace, and every right given."""
        self.broken_images.clear()
        self.failing_images.clear()
        self.forbidden.clear()
        self.grant()
        kinds = [kind for kind in _KINDS.values() if kind.api not in _MISSING]
        for kind in kinds:
            alone = self.names(kind.plural) if kind.plural == "services" else [""]  # which go one by one
            for name in alone:
                self.must("DELETE", kind.path(NAMESPACE, name), {"propagationPolicy": "Background"})
        eventually(lambda: not any(self.names(kind.plural) for kind in kinds), within=300)

    def grant(self) -> None:
        """Give the user every right but those that are forbidden."""
        rules = [
            {
                "apiGroups": [kind.group],
                "resources": [kind.plural],
                "verbs": [verb for verb in _VERBS if (verb, kind.plural) not in self.forbidden],
            }
            for kind in _KINDS.values()
        ]
        role = {"metadata": {"name": "fleet"}, "rules": rules}
        path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        if self.ask("PUT", f"{path}/fleet", role)[0] == 404:
            self.must("POST", path, role)

    # --- what a kubelet does

    def _play_kubelet(self) -> None:
        while not self._ends.wait(0.1):
            with suppress(OSError, http.client.HTTPException, KeyError):
                for pod in self.ask("GET", POD.path(NAMESPACE))[1]["items"]:
                    status = _pod_status(pod, self.broken_images, self.failing_images)
                    if (pod["status"].get("containerStatuses") or []) == []:
                        path = POD.path(NAMESPACE, pod["metadata"]["name"]) + "/status"
                        self.ask("PATCH", path, {"status": status}, content="application/merge-patch+json")

    def watch_began(self, connection: Any) -> None:
        self._watches.add(connection)

    def watch_ended(self, connection: Any) -> None:
        self._watches.discard(connection)


def _ended(image: str, code: int) -> dict[str, Any]:
    """Of a Job's pod, which runs to its end at once."""
    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    container = {"name": "worker", "image": image, "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"phase": "Failed" if code else "Succeeded", "conditions": [], "containerStatuses": [container]}


class _Forbidden(set[tuple[str, str]]):
    """What is added is taken from the user's role at once."""

    def __init__(self, server: RealServer) -> None:
        super().__init__()
        self._server = server

    def add(self, right: tuple[str, str]) -> None:
        super().add(right)
        self._server.grant()


def _pod_status(pod: dict[str, Any], broken: set[str], failing: set[str]) -> dict[str, Any]:
    image = pod["spec"]["containers"][0]["image"]
    works = image not in broken
    if works and "job-name" in pod["metadata"]["labels"]:
        return _ended(image, 1 if image in failing else 0)
    state = (
        {"running": {"startedAt": _BEGAN}} if works else {"waiting": {"reason": "ImagePullBackOff", "message": image}}
    )
    container = {"name": "worker", "image": image, "imageID": "", "ready": works, "restartCount": 0, "state": state}
    said = "True" if works else "False"
    conditions = [{"type": kind, "status": said, "lastTransitionTime": _BEGAN} for kind in ("Ready", "ContainersReady")]
    return {"phase": "Running" if works else "Pending", "conditions": conditions, "containerStatuses": [container]}


# --- the proxy


def _handler(server: RealServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            upstream = server.connection()
            try:
                headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
                upstream.request(self.command, self.path, body, headers)
                response = upstream.getresponse()
                if "watch=true" in self.path and response.status == 200:
                    self._stream(response)
                else:
                    self._answer(response.status, response.read())
            finally:
                upstream.close()

        do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, response: http.client.HTTPResponse) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            server.watch_began(self.connection)
            try:
                for chunk in _chunks(response):
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True  # it was cut
            finally:
                server.watch_ended(self.connection)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read1(1 << 16):
        yield chunk
