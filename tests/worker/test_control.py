"""Remote control commands, called on a consumer that is driven by hand. The wire is tried on real brokers elsewhere."""

from __future__ import annotations

import signal

from fleet.worker.control import COMMANDS, Control
from tests.worker.test_consumer import Make, gate, make, ran

__all__ = ["make"]


def test_commands_tell_what_is_here(make: Make) -> None:
    world = make("threads", 1, prefetch=2)
    control = Control(world.consumer, "memory://", "f.g.0@here")
    running = world.channel.put("waits", 1)
    reserved = world.channel.put("waits", 2)
    scheduled = world.channel.put("note", 3, countdown=60)
    world.until(lambda: len(world.channel.held) >= 2 and world.consumer.running)
    assert [job["id"] for job in control.active()] == [running]
    assert [job["id"] for job in control.reserved()] == [reserved]
    assert control.active()[0]["acknowledged"] is False
    assert control.active_queues() == [{"name": "q", "routing_key": "q"}]
    assert "waits" in control.registered()
    assert control.stats()["pool"]["max-concurrency"] == 1
    assert control.ping() == {"ok": "pong"}
    gate.set()
    world.until(lambda: len(control.scheduled()) == 1)
    assert control.scheduled()[0]["request"]["id"] == scheduled


def test_a_revoked_task_that_waits_here_does_not_run(make: Make) -> None:
    world = make("threads", 1, prefetch=2)
    control = Control(world.consumer, "memory://", "f.g.0@here")
    world.channel.put("waits", 1)
    waiting = world.channel.put("waits", 2)
    world.until(lambda: len(world.channel.held) == 2)
    assert waiting in control.revoke(task_id=waiting)["ok"]
    assert control.revoked() == [waiting]
    gate.set()
    world.until(lambda: len(world.channel.acked) == 2)
    assert ran == [1]


def test_terminating_in_a_pool_that_cannot_says_so(make: Make) -> None:
    world = make("threads", 1)
    control = Control(world.consumer, "memory://", "f.g.0@here")
    running = world.channel.put("waits", 1)
    world.until(lambda: world.pool.busy_slots == 1)
    assert control.terminate(task_id=running, signal="KILL") == {"ok": "terminate: tasks unknown"}
    assert control.revoke(task_id=["x"], terminate=True, signal=int(signal.SIGTERM)) == {
        "ok": "terminate: tasks unknown"
    }


def test_every_command_that_people_type_is_there() -> None:
    assert {"ping", "active", "reserved", "scheduled", "registered", "stats", "active_queues"} <= set(COMMANDS)
    assert {"revoke", "terminate", "shutdown"} <= set(COMMANDS)
