"""A real Prometheus of the tests: it scrapes every second, and answers queries."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.servers import free_port


class PrometheusServer:
    """Scrapes one target on the loopback from ``start`` to ``remove``."""

    def __init__(self, target: str, *, rules: Path) -> None:
        if shutil.which("prometheus") is None:
            pytest.fail("Prometheus is missing: run `make servers` (as root) or install prometheus")
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="fl-prometheus-"))
        self._process: subprocess.Popen[bytes] | None = None
        scrape = {"job_name": "fleet", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        config = {"scrape_configs": [scrape], "rule_files": [str(rules)], "global": {"evaluation_interval": "1s"}}
        (self._folder / "prometheus.yml").write_text(json.dumps(config))

    def start(self) -> PrometheusServer:
        """Start it; it answers a moment later."""
        with (self._folder / "out").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        return self

    def remove(self) -> None:
        """Stop, and leave nothing."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(120)
        shutil.rmtree(self._folder, ignore_errors=True)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression is now: a list of series. AssertionError where it is wrong or nobody answers yet."""
        answer = self._get("query", {"query": expression})
        found: list[dict[str, Any]] = answer["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules, as it last evaluated them."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def _get(self, what: str, parameters: dict[str, str]) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        except OSError as error:
            raise AssertionError(f"Prometheus does not answer: {error}") from error
