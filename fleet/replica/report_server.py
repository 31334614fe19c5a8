"""Serves what a pod tells of its worker over HTTP. Reading only: no request changes anything."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fleet.replica.pod_report import PATH, PodReport, reported
from fleet.replica.process_identity import lives
from fleet.replica.record import read

_PATIENCE_SECONDS = 5.0


class ReportServer:
    """Listens from its making to ``close``, in threads of its own. Raises OSError where it cannot listen."""

    def __init__(self, record: Path, *, port: int, host: str = "") -> None:
        self._server = _Server((host, port), record)
        self._thread = threading.Thread(target=self._server.serve_forever, name="report", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], record: Path) -> None:
        self.record = record
        super().__init__(address, _Handler)

    def report(self) -> PodReport | None:
        """None where no process of the worker lives."""
        record = read(self.record)
        if record is None or not lives(record.pid, record.started_ticks):
            return None
        return reported(record, now=time.time())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:
        report = self.server.report() if self.path == PATH else None
        body = b"" if report is None else json.dumps(report.to_json()).encode()
        self.send_response(404 if report is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a look every other second is no news."""
