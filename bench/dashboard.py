"""What the dashboard costs: one reader that looks once a second at two hundred replicas that work, for many pages."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import figures
from metrics import Fleet

from fleet.operate.dashboard.following import FleetFollower
from fleet.operate.dashboard.live import Live

PAGES = 10


class Reader(Live):
    """The same, with the processor time of its thread and the size of what it tells."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.looks: list[float] = []
        self.sizes: list[int] = []

    def look(self) -> None:
        began = time.thread_time()
        super().look()
        self.looks.append(time.thread_time() - began)


def at_work(fleet: Fleet, over: threading.Event) -> threading.Thread:
    """Once a second every replica ends a task and begins another."""
    workers = fleet.work()

    def work() -> None:
        while not over.wait(1.0):
            for one in workers:
                one.go_on()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


async def followed(reader: Reader, seconds: float) -> dict[str, Any]:
    """So many pages follow for so long: what the reader and the whole process spend."""
    reader.start()
    pages = [reader.begin("bench") for _ in range(PAGES)]
    for page in pages:
        await page.next()
    began, spent, before = time.monotonic(), time.process_time(), len(reader.looks)

    async def read(page: Any) -> None:
        while (text := await page.next()) is not None:
            reader.sizes.append(len(text))

    tasks = [asyncio.create_task(read(page)) for page in pages]
    await asyncio.sleep(seconds)
    passed, looks = time.monotonic() - began, reader.looks[before:]
    whole_process = (time.process_time() - spent) / passed * 100
    reader.close()
    await asyncio.gather(*tasks)
    return {
        "pages": PAGES,
        "looks": len(looks),
        "lookMilliseconds": figures.spread([one * 1e3 for one in looks], digits=1),
        "readerPercentOfACore": round(sum(looks) / passed * 100, 2),
        "processPercentOfACoreWithTheWriters": round(whole_process, 2),
        "bytesOfAnUpdate": figures.spread([float(one) for one in reader.sizes], digits=0),
    }


def main() -> None:
    """Two hundred replicas, or twenty with --quick."""
    given = figures.arguments(__doc__, runs=60)
    replicas = 20 if given.quick else 200
    over = threading.Event()
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fleet = Fleet(Path(folder), replicas)
        try:
            fleet.start()
            writers = at_work(fleet, over)
            reader = Reader(lambda: ["bench"], lambda _: FleetFollower(fleet.local))
            found = asyncio.run(followed(reader, 10.0 if given.quick else max(30.0, float(given.runs))))
            over.set()
            writers.join()
        finally:
            fleet.down()
    print(f"{replicas} replicas, {PAGES} pages: the reader takes {found['readerPercentOfACore']} % of a core")
    print(figures.write("dashboard", {"replicas": replicas, **found}))


if __name__ == "__main__":
    main()
