"""The door to git: transports, bounds, and that nothing of this machine's configuration gets in."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fleet.operate.sync import git
from fleet.operate.sync.remote import Remote, remote
from tests.conftest import eventually
from tests.operate.sync.worlds import Place, Upstream, manifest

NOBODY = git.Access()


@pytest.fixture
def repository(tmp_path: Path) -> git.Repository:
    made = git.Repository(tmp_path / "ours.git")
    made.prepare()
    return made


def take(repository: git.Repository, upstream: Upstream, access: git.Access = NOBODY, url: str = "") -> str:
    where = remote(url or str(upstream.bare))
    assert "refs/heads/main" in repository.remote_refs(where, access)
    repository.fetch(where, access, "+refs/heads/main:refs/fleet/head")
    return repository.resolve("refs/fleet/head")


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_local_paths(repository: git.Repository, upstream: Upstream, prefix: str) -> None:
    commit = upstream.publish(manifest(1))
    assert take(repository, upstream, url=f"{prefix}{upstream.bare}") == commit


def test_configuration_of_this_machine_has_no_say(
    repository: git.Repository, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = tmp_path / "gitconfig"
    evil.write_text(f'[url "/nowhere"]\n\tinsteadOf = {upstream.bare}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(evil))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    (tmp_path / ".gitconfig").write_text(evil.read_text())
    monkeypatch.setenv("HOME", str(tmp_path))
    commit = upstream.publish(manifest(1))
    assert take(repository, upstream) == commit
    assert not (tmp_path / "trace").exists()


def test_a_transport_that_runs_programs_is_refused_by_git_too(repository: git.Repository, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    with pytest.raises(git.GitError, match="not allowed"):
        repository.remote_refs(Remote(f"ext::touch {proof}", "https"), NOBODY)
    assert not proof.exists()


def take_and_measure(repository: git.Repository, upstream: Upstream) -> None:
    take(repository, upstream)
    repository.check_size()


def test_a_repository_that_is_too_large_is_given_up(upstream: Upstream, tmp_path: Path) -> None:
    (upstream.work / "noise").write_bytes(os.urandom(3 << 20))
    upstream.publish(manifest(1))
    small = git.Repository(tmp_path / "ours.git", most_bytes=1 << 20)
    small.prepare()
    for _ in range(2):
        with pytest.raises(git.GitError, match="maxSize allows 1,048,576"):
            take_and_measure(small, upstream)
        assert not list((tmp_path / "ours.git").glob("objects/pack/tmp_*"))


@contextmanager
def program(folder: Path, name: str, text: str) -> Iterator[dict[str, str]]:
    """An environment in which a program of ours comes first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    yield {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_git_that_does_not_answer_is_ended_with_what_it_started(upstream: Upstream, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hangs = f"#!/bin/sh\nsleep 1000 & echo $! > {pid}\nwait\n"
    with program(tmp_path / "bin", "ssh", hangs) as environ:
        slow = git.Repository(tmp_path / "ours.git", environ=environ)
        slow.prepare()
        slow.timeout_seconds = 1.5
        with pytest.raises(git.GitError, match="took longer than"):
            slow.remote_refs(remote("git@host:x.git"), git.Access(known_hosts="/dev/null"))
    eventually(lambda: _is_gone(pid.read_text().strip()))


def _is_gone(pid: str) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_git_is_ended_when_the_service_stops(upstream: Upstream, tmp_path: Path) -> None:
    with program(tmp_path / "bin", "ssh", "#!/bin/sh\nexec sleep 1000\n") as environ:
        over = threading.Event()
        slow = git.Repository(tmp_path / "ours.git", environ=environ, is_over=over.is_set)
        slow.prepare()
        threading.Timer(0.3, over.set).start()
        with pytest.raises(git.Ended):
            slow.remote_refs(remote("git@host:x.git"), git.Access(known_hosts="/dev/null"))


SSH = """#!{python}
import os, sys
# What an ssh client does with these words, but for the network: note them, and run the command here.
open({words!r}, "w").write("\\n".join(sys.argv[1:]))
os.execvp("sh", ["sh", "-c", sys.argv[-1]])
"""


@pytest.mark.parametrize("url", ["git@deploy.example.com:{path}", "ssh://git@deploy.example.com:2222{path}"])
def test_ssh_takes_the_key_and_known_hosts_and_asks_nobody(upstream: Upstream, tmp_path: Path, url: str) -> None:
    commit = upstream.publish(manifest(1))
    words = tmp_path / "words"
    path = str(upstream.bare) if url.startswith("ssh") else str(upstream.bare).lstrip("/")
    stand_in = SSH.format(python=sys.executable, words=str(words))
    access = git.Access(ssh_key="/keys/a key", known_hosts="/keys/known hosts")
    with program(tmp_path / "bin", "ssh", stand_in) as environ:
        ours = git.Repository(tmp_path / "ours.git", environ=environ)
        ours.prepare()
        if not url.startswith("ssh"):
            ours.environ = {**environ}
            url = "git@deploy.example.com:" + os.path.relpath(upstream.bare, "/")
        taken = take(ours, upstream, access, url=url.format(path=path))
    assert taken == commit
    said = words.read_text().splitlines()
    assert said[:4] == ["-F", "/dev/null", "-i", "/keys/a key"]
    assert "UserKnownHostsFile=/keys/known hosts" in said
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"):
        assert option in said
    assert "git@deploy.example.com" in said


class _Backend(BaseHTTPRequestHandler):
    """``git http-backend`` behind a name and a password, as a web server runs it."""

    protocol_version = "HTTP/1.1"
    root = ""
    wanted = ""
    seen: list[str]

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self._serve(b"".join(iter(self._chunk, b"")))
        else:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _serve(self, body: bytes) -> None:
        given = self.headers.get("Authorization", "")
        self.seen.append(given)
        path, _, query = self.path.partition("?")
        if path.startswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/elsewhere", ""))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if given != self.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=True)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in {**fields, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def web(upstream: Upstream, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a web server with the repository, and the credentials of each request."""
    with served(upstream, tmp_path, None) as known:
        yield known


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate of this machine's own, in ``cert.pem``."""
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@contextmanager
def served(upstream: Upstream, tmp_path: Path, tls: ssl.SSLContext | None) -> Iterator[tuple[str, list[str]]]:
    """A web server with the repository: its address, and the credentials of each request."""
    wanted = "Basic " + base64.b64encode(b"deploy:s3cret").decode()
    seen: list[str] = []
    kind = type("Backend", (_Backend,), {"root": str(upstream.root), "wanted": wanted, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.handle_error = lambda *_words: None  # type: ignore[method-assign]
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_token_opens_the_door_and_is_in_no_argument(
    repository: git.Repository, upstream: Upstream, web: tuple[str, list[str]]
) -> None:
    commit = upstream.publish(manifest(1))
    access = git.Access(username="deploy", token="s3cret")
    assert take(repository, upstream, access, url=f"{web[0]}/deploy.git") == commit
    assert set(web[1]) == {"Basic " + base64.b64encode(b"deploy:s3cret").decode()}


@pytest.mark.parametrize("trusted", [True, False])
def test_https_trusts_the_authority_it_is_given(
    repository: git.Repository, upstream: Upstream, tmp_path: Path, trusted: bool
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    commit = upstream.publish(manifest(1))
    with served(upstream, tmp_path, certificate(tmp_path)) as (address, _):
        access = git.Access(username="deploy", token="s3cret", ca_file=str(tmp_path / "cert.pem") if trusted else "")
        if trusted:
            assert take(repository, upstream, access, url=f"{address}/deploy.git") == commit
        else:
            with pytest.raises(git.GitError, match="certificate"):
                take(repository, upstream, access, url=f"{address}/deploy.git")


def test_a_wrong_token_is_refused_and_nobody_is_asked(
    repository: git.Repository, upstream: Upstream, web: tuple[str, list[str]]
) -> None:
    upstream.publish(manifest(1))
    with pytest.raises(git.GitError) as caught:
        take(repository, upstream, git.Access(username="deploy", token="wr0ng"), url=f"{web[0]}/deploy.git")
    assert "wr0ng" not in caught.value.message


def test_a_redirect_is_not_followed(repository: git.Repository, upstream: Upstream, web: tuple[str, list[str]]) -> None:
    upstream.publish(manifest(1))
    access = git.Access(username="deploy", token="s3cret")
    with pytest.raises(git.GitError):
        take(repository, upstream, access, url=f"{web[0]}/elsewhere/deploy.git")
    assert len(web[1]) == 1


def test_a_source_with_a_token_reads_it_from_its_secret(
    place: Place, upstream: Upstream, web: tuple[str, list[str]]
) -> None:
    commit = upstream.publish(manifest(1))
    (place.root / "token").write_text("s3cret\n")
    (place.root / "token").chmod(0o600)
    auth = "    auth: {username: deploy, token: {secret: deploy-token}}\n"
    fetched, _ = place.look(url=f"{web[0]}/deploy.git", git=auth, more="  secrets: {deploy-token: {file: token}}\n")
    assert fetched.good == commit
    assert "s3cret" not in "".join(path.read_text() for path in place.places.root.glob("*.json"))
