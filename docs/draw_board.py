"""Draws the panels of the Grafana dashboard under the load of examples/04-balance: ``python -m docs.draw_board``.

Grafana is in no package of Debian or PyPI. So the panels are read from the dashboard's own file, a real Prometheus
answers each query, and matplotlib draws what it says in the places that the file gives: the same numbers, not the look.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.example_load import ROOT, SECOND_BURST_SECONDS, fleet_of_example, keep

BOARD = ROOT / "docs" / "monitoring" / "grafana-dashboard.json"
VARIABLES = {"$fleet": ".*", "$group": ".*", "$__rate_interval": "20s"}
STEP_SECONDS = 2
COLUMNS = 24
COLUMN_INCHES, ROW_INCHES, DPI = 0.46, 0.24, 90
_UNITS = {"s": ("s", 1.0), "bytes": ("MiB", 2.0**-20), "ops": ("/s", 1.0)}
"""How a unit of the file is written, and what a value is multiplied by."""


class Prometheus:
    """A real one, which scrapes one target every second."""

    def __init__(self, folder: Path, target: str, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query_range"
        scrape = {"job_name": "fleet", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
        (folder / "prometheus.yml").write_text(json.dumps({"scrape_configs": [scrape]}))
        where = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
        with (folder / "log").open("wb") as log:
            words = ["prometheus", *where, f"--web.listen-address=127.0.0.1:{port}"]
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def series(self, query: str, *, begin: float, end: float) -> list[dict[str, Any]]:
        """What a query was over that time, as the API has it."""
        asked = {"query": query, "start": begin, "end": end, "step": STEP_SECONDS}
        with urllib.request.urlopen(f"{self._url}?{urllib.parse.urlencode(asked)}", timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def scraped(environ: dict[str, str]) -> Iterator[Prometheus]:
    """The fleet's metrics, served and scraped."""
    words = [str(Path(sys.executable).parent / "fleet"), "metrics", "--fleet", "balance", "--listen", "127.0.0.1:0"]
    metrics = subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True)
    assert metrics.stderr is not None
    found = re.search(r"metrics at (\S+),", metrics.stderr.readline())
    assert found is not None
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        prometheus = Prometheus(Path(folder), found[1], free_port())
        try:
            yield prometheus
        finally:
            prometheus.end()
            metrics.terminate()
            metrics.wait()


def free_port() -> int:
    """One that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


Answers = dict[tuple[int, str], list[dict[str, Any]]]
"""(panel, target) -> series."""


def answers(panels: list[dict[str, Any]], prometheus: Prometheus, *, begin: float, end: float) -> Answers:
    """What each query of each panel is answered."""
    found = {}
    for panel in panels:
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            found[panel["id"], target["refId"]] = prometheus.series(query, begin=begin, end=end)
    return found


def drawn(panels: list[dict[str, Any]], found: Answers, *, begin: float) -> Figure:
    """Every panel in its place."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = plt.figure(figsize=(COLUMNS * COLUMN_INCHES, rows * ROW_INCHES), dpi=DPI)
    for panel in panels:
        place = panel["gridPos"]
        width, height = place["w"] / COLUMNS, place["h"] / rows
        left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / rows
        inside = (left + 0.035, bottom + 0.26 * height, width - 0.05, 0.58 * height)
        axes = figure.add_axes(inside)
        axes.set_title(panel["title"], fontsize=8, loc="left", fontweight="bold", pad=3)
        if panel["type"] == "stat":
            _stat(axes, panel, found)
        else:
            _lines(axes, panel, found, begin)
    return figure


def _stat(axes: Axes, panel: dict[str, Any], found: Answers) -> None:
    axes.axis("off")
    said = []
    for target in panel["targets"]:
        for one in found[panel["id"], target["refId"]]:
            value = float(one["values"][-1][1])
            said.append(f"{value:.3g} {target['legendFormat']}")
    axes.text(0.0, 0.3, "   ".join(said) or "no data", fontsize=12, color="#1f6f8b")


def _lines(axes: Axes, panel: dict[str, Any], found: Answers, begin: float) -> None:
    unit, factor = _UNITS.get(panel["fieldConfig"]["defaults"]["unit"], ("", 1.0))
    for target in panel["targets"]:
        for one in found[panel["id"], target["refId"]]:
            label = re.sub(r"{{(\w+)}}", lambda name, one=one: one["metric"].get(name[1], ""), target["legendFormat"])
            times, values = zip(
                *((float(at) - begin, float(value) * factor) for at, value in one["values"]), strict=True
            )
            axes.plot(times, values, linewidth=1.0, label=label.rpartition(":")[2])
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=6, length=2, pad=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0)
    axes.set_ylabel(unit, fontsize=6)
    axes.legend(fontsize=5.5, ncols=4, frameon=False, loc="upper left", bbox_to_anchor=(-0.03, -0.14), handlelength=1)


def main() -> None:
    """Up, load, queries, picture, down."""
    panels = json.loads(BOARD.read_text())["panels"]
    with fleet_of_example() as (fleet, playing), scraped(fleet.env) as prometheus:
        begin = time.time()
        playing.start()
        time.sleep(SECOND_BURST_SECONDS)
        found = answers(panels, prometheus, begin=begin, end=time.time())
    silent = [
        panel["title"] for panel in panels if not any(found[panel["id"], one["refId"]] for one in panel["targets"])
    ]
    print(f"without an answer: {', '.join(silent) or 'none'}")
    picture = io.BytesIO()
    drawn(panels, found, begin=begin).savefig(picture, dpi=DPI)
    keep(picture.getvalue(), "grafana-panels.png")


if __name__ == "__main__":
    main()
