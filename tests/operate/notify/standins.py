"""Local receivers of notifications: a web server and a mail server that keep what they got."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """code: what it answers; 0 answers nothing until it is closed.  got: path, headers and body of each request."""

    url: str = ""
    code: int = 200
    got: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[str]:
        return [body for _, _, body in self.got]


@contextmanager
def web_server() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            web.got.append((self.path, dict(self.headers), body))
            if not web.code:
                web.over.wait()
                return
            self.send_response(web.code)
            self.send_header("Location", f"{web.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"no: T0P5ECRET")

        def log_message(self, *_args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.over.set()
            server.shutdown()
            thread.join()


@dataclass
class Mail:
    """refuses: the answer to a command, by its word, instead of a good one.  said: the client's lines."""

    port: int = 0
    refuses: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mail]:
    mail = Mail()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.answer("220 stand-in")
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                mail.said.append(line)
                word = line.split()[0].upper() if not line.upper().startswith("RCPT") else line.upper()
                refusal = next((text for key, text in mail.refuses.items() if word.startswith(key)), "")
                if refusal:
                    self.answer(refusal)
                elif word == "EHLO":
                    self.answer("250-stand-in\r\n250 AUTH PLAIN")
                elif word == "AUTH":
                    self.answer("235 welcome")
                elif word == "DATA":
                    self.answer("354 go on")
                    mail.mails.append(self.until_dot())
                    self.answer("250 taken")
                elif word == "QUIT":
                    self.answer("221 bye")
                    return
                else:
                    self.answer("250 fine")

        def answer(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def until_dot(self) -> str:
            lines = []
            while (line := self.rfile.readline().decode()) != ".\r\n":
                lines.append(line)
            return "".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        mail.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield mail
        finally:
            server.shutdown()
            thread.join()
