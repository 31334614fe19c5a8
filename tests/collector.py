"""An OpenTelemetry collector in the process of the test: OTLP over HTTP, kept as decoded protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class SeenSpan:
    """One span as it came. Ids are hexadecimal, times are Unix nanoseconds."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, Mapping[str, Any]], ...]
    failed: bool
    status: str
    resource: Mapping[str, Any]


class Collector:
    """What was sent to it. ``hangs``: it takes requests and never answers until it is closed."""

    def __init__(self, *, hangs: bool = False) -> None:
        self._lock = threading.Lock()
        self._spans: list[SeenSpan] = []
        self._metrics: list[Any] = []
        self._over = threading.Event()
        self.asked = threading.Event()
        self.headers: list[Mapping[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.set()
                if hangs:
                    collector._over.wait()
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector._take(self.path, body, dict(self.headers))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def spans(self) -> list[SeenSpan]:
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in self.spans() if span.name == name]

    def metrics(self) -> list[Any]:
        """Of the last push: OTLP metrics."""
        with self._lock:
            return list(self._metrics)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        with self._lock:
            self.headers.append(headers)
            if path == "/v1/traces":
                self._spans += _spans_in(ExportTraceServiceRequest.FromString(body))
            elif path == "/v1/metrics":
                request = ExportMetricsServiceRequest.FromString(body)
                self._metrics = [
                    metric
                    for one in request.resource_metrics
                    for scope in one.scope_metrics
                    for metric in scope.metrics
                ]


def _spans_in(request: ExportTraceServiceRequest) -> Iterator[SeenSpan]:
    for one in request.resource_spans:
        for scope in one.scope_spans:
            for span in scope.spans:
                yield SeenSpan(
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    attributes=plain(span.attributes),
                    events=tuple((event.name, plain(event.attributes)) for event in span.events),
                    failed=span.status.code == 2,
                    status=span.status.message,
                    resource=plain(one.resource.attributes),
                )


def plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def collector(*, hangs: bool = False) -> Iterator[Collector]:
    made = Collector(hangs=hangs)
    try:
        yield made
    finally:
        made.close()
