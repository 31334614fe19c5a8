"""What people order by hand: hands off a source for a while, and a commit that may be applied all the same."""

from __future__ import annotations

from dataclasses import replace

from fleet.operate.sync.state import Orders, SourcePlaces, read_orders, write
from fleet.operate.sync.verdict import at
from fleet.state.audit import who


def suspend(places: SourcePlaces, *, seconds: float, reason: str, now: float) -> str:
    """Keep the source's hands off its fleet for so long; until when, for people."""
    until = now + seconds
    orders = replace(read_orders(places), suspended_until=until, suspend_reason=reason, suspended_by=who())
    write(places.orders, orders)
    return at(until)


def resume(places: SourcePlaces) -> None:
    """End a suspension."""
    orders = replace(read_orders(places), suspended_until=0.0, suspend_reason="", suspended_by="")
    write(places.orders, orders)
    if places.root.is_dir():
        places.nudge.touch()


def approve(places: SourcePlaces, commit: str) -> None:
    """Let a commit be applied once, whatever the mode, the window or an earlier failure."""
    _order(places, replace(read_orders(places), approved=commit, approved_by=who()))


def accept(places: SourcePlaces, commit: str) -> None:
    """Let a commit be followed that does not go on from what was accepted before."""
    _order(places, replace(read_orders(places), accepted=commit, accepted_by=who()))


def _order(places: SourcePlaces, orders: Orders) -> None:
    write(places.orders, orders)
    places.nudge.touch()


def suspension_by_hand(orders: Orders, now: float) -> str:
    """Until when hands are off because somebody said so, and why; empty when they are not."""
    if now < orders.suspended_until:
        return f"suspended until {at(orders.suspended_until)} by {orders.suspended_by}: {orders.suspend_reason}"
    return ""
