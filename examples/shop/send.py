"""Sends work of every kind to the shop, waits for the results, and checks each of them.

    .venv/bin/fleet apply manifests/prod.yaml
    .venv/bin/python examples/shop/send.py

Meanwhile, in another shell: `fleet status --fleet shop`, `fleet explain --fleet shop --live`. Ends with 1 if a result
is missing or wrong.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.exceptions import TimeoutError as NoResultInTime
from celery.result import AsyncResult
from shop import partner, pictures, sales, settings
from shop.tasks import mail, report, stock, thumbnail, webhook

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of work: its task, what to call it with, and whether an answer to a call is right."""

    group: str
    task: Any
    calls: list[tuple[Any, ...]]
    is_right: Callable[[Answer, tuple[Any, ...]], bool]


def thumbnail_is_right(answer: Answer, call: tuple[Any, ...]) -> bool:
    """The same picture is made here, in one piece; and the task had two processes of its own."""
    expected = pictures.shrunk(pictures.drawn(call[0]), width=pictures.SIDE)
    written = (settings.state() / "thumbs" / f"{call[0]}.gray").read_bytes()
    others = {*answer["started"]} - {answer["pid"]}
    return written == expected and answer["result"] == hashlib.sha256(expected).hexdigest() and len(others) == 2


def report_is_right(answer: Answer, call: tuple[Any, ...]) -> bool:
    """The sums are made again."""
    sums = dict.fromkeys(sales.ARTICLES, 0)
    for article, cents in sales.orders(call[0]):
        sums[article] += cents
    return bool(answer["result"] == sums)


def mail_is_right(answer: Answer, call: tuple[Any, ...]) -> bool:
    """The message lies in the outbox."""
    message = email.message_from_bytes((settings.state() / "outbox" / answer["result"]).read_bytes())
    return (message["To"], message["Subject"]) == call


def webhook_is_right(answer: Answer, call: tuple[Any, ...]) -> bool:
    """The partner's receipt for this order; it gives none for a wrong signature."""
    return bool(answer["result"] == partner.receipt(json.dumps({"order": call[0]}).encode()))


def stock_is_right(answer: Answer, call: tuple[Any, ...]) -> bool:
    """The sum over all warehouses."""
    return bool(answer["result"] == sum(partner.in_stock(warehouse, call[0]) for warehouse in partner.WAREHOUSES))


def kinds(share: float) -> list[Kind]:
    """All of it; ``share``: part of the usual number of calls."""

    def numbers(count: int) -> range:
        return range(1, max(1, round(count * share)) + 1)

    return [
        Kind("thumbs", thumbnail, [(number,) for number in numbers(40)], thumbnail_is_right),
        Kind("reports", report, [(day,) for day in numbers(40)], report_is_right),
        Kind("mail", mail, [(f"buyer-{n}@example.com", f"Order {n}") for n in numbers(200)], mail_is_right),
        Kind("webhooks", webhook, [(order,) for order in numbers(600)], webhook_is_right),
        Kind("stock", stock, [(f"article {n}".replace(" ", "-"),) for n in numbers(200)], stock_is_right),
    ]


def check(kind: Kind, sent: list[AsyncResult[Any]], *, until: float) -> tuple[str, bool]:
    """Wait for all results of one kind; a line that tells how it went, and whether all are right."""
    right, replicas, problems = 0, set(), []
    for call, result in zip(kind.calls, sent, strict=True):
        try:
            answer = result.get(timeout=max(0.1, until - time.time()))
        except NoResultInTime:
            problems.append(f"{call}: no result in time")
            continue
        except Exception as error:  # whatever the task raised
            problems.append(f"{call}: {error!r}")
            continue
        replicas.add(answer["replica"])
        if kind.is_right(answer, call):
            right += 1
        else:
            problems.append(f"{call}: wrong: {answer['result']}")
    names = sorted(replicas)
    shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    mark = "✓" if right == len(sent) else "✗"
    lines = [f"{mark} {kind.group:<9} {right:>4} of {len(sent):>3} right   by {shown or 'nobody'}"]
    return "\n".join([*lines, *(f"    {problem}" for problem in problems[:3])]), right == len(sent)


def night_came(since: float, *, until: float) -> bool:
    """Beat has sent its task and a worker has done it since then."""
    path = settings.state() / "nightly.json"
    while time.time() < until:
        if path.exists() and path.stat().st_mtime > since:
            return bool(json.loads(path.read_text()) == sales.totals(0))
        time.sleep(0.2)
    return False


def main() -> int:
    """Send, wait, check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="part of the usual number of tasks (default 1)")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="longest wait (default 300)")
    args = parser.parse_args()
    began = time.time()
    until = began + args.timeout
    work = kinds(args.share)
    sent = [[kind.task.delay(*call) for call in kind.calls] for kind in work]
    total = sum(map(len, sent))
    print(f"sent {total} tasks to {len(work)} groups; waiting for their results", flush=True)
    good = []
    for kind, results in zip(work, sent, strict=True):
        line, right = check(kind, results, until=until)
        good.append(right)
        print(line, flush=True)
    night = night_came(began, until=until)
    print(
        f"{'✓' if night else '✗'} beat      its nightly report came" if night else "✗ beat      no right nightly report"
    )
    good.append(night)
    print(f"{'all right' if all(good) else 'NOT all right'}, after {time.time() - began:.1f} s")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
