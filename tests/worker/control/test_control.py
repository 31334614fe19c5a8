"""Remote control commands, called on a consumer that is driven by hand. The wire is tried on real brokers elsewhere."""

from __future__ import annotations

import re
import signal
import threading

import pytest

from docs.pages import ROOT
from fleet.worker.control.commands import OLD_NAMES, ORDERS, QUESTIONS
from fleet.worker.control.run_in_loop import LoopCalls
from pools import EventLoop
from tests.conftest import PATIENCE, eventually
from tests.worker.loop.test_consumer import Make, gate, make, ran
from tests.worker.remotes import NODE, Steered

__all__ = ["make"]


def test_commands_tell_what_is_here(make: Make) -> None:
    world = make("threads", 1, prefetch=2)
    steered = Steered(world)
    running, reserved = world.channel.put("waits", 1), world.channel.put("waits", 2)
    world.until(lambda: len(world.channel.held) >= 2 and world.parts.inflight.running)
    assert steered.tasks("active") == [running]
    assert steered.tasks("reserved") == [reserved]
    [job] = steered.ask("active")
    assert (job["acknowledged"], job["args"], job["hostname"]) == (False, [1], NODE)
    assert steered.ask("active", safe=True)[0]["args"] == "(1,)"
    assert {
        task_id: state for task_id, (state, _) in steered.ask("query_task", ids=[running, reserved, "x"]).items()
    } == {
        running: "active",
        reserved: "reserved",
    }
    assert [queue["name"] for queue in steered.ask("active_queues")] == ["q"]
    assert "waits [name=waits]" in steered.ask("registered", taskinfoitems=["name", "_secret"])
    assert steered.ask("stats")["pool"]["max-concurrency"] == 1
    assert steered.ask("stats")["total"] == {"waits": 1}
    assert steered.ask("ping") == {"ok": "pong"}


def test_what_waits_for_its_date_is_scheduled(make: Make) -> None:
    world = make("threads", 1)
    steered = Steered(world)
    later = world.channel.put("note", 3, countdown=60)
    world.until(lambda: steered.tasks("scheduled"))
    [entry] = steered.ask("scheduled")
    assert entry["request"]["id"] == later
    assert entry["eta"].endswith("+00:00")
    assert steered.tasks("reserved") == []


def test_a_revoked_task_that_waits_here_does_not_run(make: Make) -> None:
    world = make("threads", 1, prefetch=2)
    steered = Steered(world)
    world.channel.put("waits", 1)
    waiting = world.channel.put("waits", 2)
    world.until(lambda: len(world.channel.held) == 2)
    assert waiting in steered.ask("revoke", task_id=waiting)["ok"]
    assert steered.ask("revoked") == [waiting]
    gate.set()
    world.until(lambda: len(world.channel.acked) == 2)
    assert ran == [1]


def test_terminating_names_what_it_ends(make: Make) -> None:
    world = make("prefork", 1)
    world.pool.start()
    steered = Steered(world)
    running = world.channel.put("waits", 1)
    world.until(lambda: world.pool.busy_slots == 1)
    assert steered.ask("terminate", task_id="x", signal="KILL") == {"ok": "terminate: tasks unknown"}
    assert "no signal" in steered.ask("terminate", task_id=running, signal="NOISE")["error"]
    assert steered.ask("revoke", task_id=[running], terminate=True, signal=int(signal.SIGTERM)) == {
        "ok": f"terminate: {running}"
    }
    world.until(lambda: world.channel.acked)
    assert ran == []


def test_what_a_pool_cannot_do_is_an_error_that_says_which_can(make: Make) -> None:
    steered = Steered(make("solo", 1))
    for command in ("pool_grow", "pool_shrink", "autoscale", "pool_restart"):
        error = steered.ask(command)["error"]
        assert "the solo pool cannot" in error
        assert "prefork" in error


def test_slots_change_and_autoscale_takes_over(make: Make) -> None:
    world = make("threads", 1)
    steered = Steered(world)
    world.until(lambda: world.parts.life.takes_work)
    assert steered.ask("pool_grow", n=2) == {"ok": "pool will grow"}
    assert world.pool.limit == 3
    assert "at least one" in steered.ask("pool_shrink", n=3)["error"]
    assert steered.ask("autoscale", max=2, min=1) == {"ok": "autoscale now max=2 min=1"}
    assert world.pool.limit == 2
    assert "autoscale" in steered.ask("pool_grow")["error"]
    assert steered.ask("autoscale", max=4) == {"ok": "autoscale now max=4 min=1"}
    assert steered.ask("stats")["autoscaler"]["max"] == 4
    for number in range(8):
        world.channel.put("waits", number)
    world.until(lambda: world.pool.busy_slots == 4)
    world.parts.settings.adopt(world.parts.options.spec)
    assert world.pool.limit == 1
    assert "autoscaler" not in steered.ask("stats")


def test_queues_come_and_go(make: Make) -> None:
    world = make("solo", 1)
    steered = Steered(world)
    assert steered.ask("add_consumer", queue="more", exchange_type="direct") == {"ok": "add consumer more"}
    assert world.parts.settings.queue_names() == ["q", "more"]
    assert "already" in steered.ask("add_consumer", queue="more")["ok"]
    assert steered.ask("cancel_consumer", queue="q") == {"ok": "no longer consuming from q"}
    assert world.parts.settings.queue_names() == ["more"]


def test_limits_are_set_for_tasks_there_are(make: Make) -> None:
    world = make("threads", 2)
    steered = Steered(world)
    assert steered.ask("time_limit", task_name="waits", hard=5, soft=None) == {"ok": "time limits set successfully"}
    assert "error" in steered.ask("time_limit", task_name="nobody", hard=5)
    assert "error" in steered.ask("time_limit", task_name="waits", hard=-5)
    assert "new rate" in steered.ask("rate_limit", task_name="waits", rate_limit="5/m")["ok"]
    assert steered.remote.rates == {"waits": "5/m"}
    assert "disabled" in steered.ask("rate_limit", task_name="waits", rate_limit="0")["ok"]
    assert "10/s" in steered.ask("rate_limit", task_name="waits", rate_limit="often")["error"]
    assert "error" in steered.ask("rate_limit", task_name="nobody", rate_limit="1/s")


def test_a_rate_holds_tasks_back_and_lifting_it_lets_them_go(make: Make) -> None:
    world = make("solo", 1)
    steered = Steered(world)
    steered.ask("rate_limit", task_name="note", rate_limit="1/h")
    for number in range(3):
        world.channel.put("note", number)
    world.channel.put("early", 9)
    world.until(lambda: 9 in ran)
    assert ran == [0, 9]
    assert len(steered.tasks("reserved")) == 2
    steered.ask("rate_limit", task_name="note", rate_limit=0)
    world.until(lambda: len(ran) == 4)
    assert ran == [0, 9, 1, 2]


def test_no_more_is_fetched_than_may_wait_for_a_rate(make: Make) -> None:
    world = make("solo", 1)
    Steered(world).ask("rate_limit", task_name="note", rate_limit="1/h")
    for number in range(50):
        world.channel.put("note", number)
    world.until(lambda: world.channel.asked[-1:] == [0])
    assert len(world.channel.queue) == 50 - 21


def test_wrong_arguments_and_unknown_commands_are_answered(make: Make) -> None:
    steered = Steered(make("solo", 1))
    assert "do not fit" in steered.ask("rate_limit")["error"]
    assert "active_queues" in steered.ask("memdump")["error"]


def test_every_command_that_people_type_is_there() -> None:
    assert set(OLD_NAMES.values()) <= set(QUESTIONS)
    assert {"revoke", "terminate", "shutdown", "rate_limit", "enable_events"} <= set(ORDERS)


def test_the_page_about_celerys_tools_names_every_command_of_celerys_worker(make: Make) -> None:
    from celery.worker.control import Panel

    page = (ROOT / "docs" / "celery-tools.md").read_text().partition("| command | fleet's worker answers |")[2]
    rows = re.findall(r"^\| (`.+?) \| (.+) \|$", page, flags=re.MULTILINE)
    answers = {name: answer for names, answer in rows for name in re.findall(r"`(\w+)`", names)}
    own = {name for name, meta in Panel.meta.items() if Panel.data[name].__module__ == "celery.worker.control"}
    assert set(answers) == own
    missing = {name for name, answer in answers.items() if answer.startswith("an error: not there")}
    assert own - missing <= set(QUESTIONS) | set(ORDERS) | set(OLD_NAMES)
    steered = Steered(make("solo", 1))
    for name in missing:
        assert "no command" in steered.ask(name)["error"]


def test_the_page_about_celerys_tools_names_every_page_and_endpoint_of_flower() -> None:
    from flower.urls import handlers

    page = (ROOT / "docs" / "celery-tools.md").read_text().partition("| Flower | with fleet's workers |")[2]
    rows = re.findall(r"^\| (`/.+?) \| .+ \|$", page, flags=re.MULTILINE)
    named = {path for row in rows for path in re.findall(r"`(/[^`]*)`", row)}
    patterns = [getattr(one, "regex", None) or re.compile(f"{one[0]}$") for one in handlers]
    own = [one for one in patterns if "static" not in one.pattern and one.pattern != ".*$"]
    found = {path: [one.pattern for one in own if one.match(path)] for path in named}
    assert [path for path, matching in found.items() if not matching] == []
    assert {one.pattern for one in own} == {pattern for matching in found.values() for pattern in matching}


def test_work_is_done_by_whoever_has_the_lock_first() -> None:
    loop, lock = EventLoop(), threading.RLock()
    calls = LoopCalls(lock, loop)
    assert calls.do(lambda: "here") == "here"
    answers: list[object] = []

    def work() -> str:
        with lock:
            return "done"

    def ask() -> None:
        answers.append(calls.do(work))

    def turned() -> bool:
        loop.run_once(0.05)
        return len(answers) == 2

    thread = threading.Thread(target=ask)
    thread.start()  # the lock is free, and nobody turns the loop
    thread.join(PATIENCE)
    with lock:
        thread = threading.Thread(target=ask)
        thread.start()
        eventually(turned)
    thread.join(PATIENCE)
    assert answers == ["done", "done"]
    loop.close()


def test_an_error_of_handed_over_work_comes_back() -> None:
    loop = EventLoop()
    calls = LoopCalls(threading.RLock(), loop)
    found: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            calls.do(lambda: 1 / 0)
        found.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(PATIENCE)
    assert found
    loop.close()


def test_tasks_are_revoked_by_their_stamps(make: Make) -> None:
    world = make("threads", 1, prefetch=3)
    steered = Steered(world)
    world.channel.put("waits", 1)
    stamped = world.channel.put("waits", 2)
    told = world.channel.queue[-1]
    told.headers = {**told.headers, "stamped_headers": ["owner"], "stamps": {"owner": ["ann", "bob"]}}
    world.until(lambda: len(world.channel.held) == 2)
    assert "no stamp" in steered.ask("revoke_by_stamped_headers", headers=["owner"])["error"]
    reply = steered.ask("revoke_by_stamped_headers", headers=["owner=bob"])
    assert reply == {"ok": "headers {'owner': ['bob']} flagged as revoked, but not terminated"}
    assert steered.ask("revoked") == []
    gate.set()
    world.until(lambda: not world.channel.held)
    assert ran == [1]
    assert stamped not in steered.tasks("active")


def test_workers_that_meet_learn_what_the_other_knows_as_revoked(make: Make) -> None:
    steered = Steered(make("threads", 1))
    steered.ask("revoke", task_id=["ours"])
    for told in (["theirs"], {"theirs": 12.5}):
        reply = steered.ask("hello", from_node="celery@there", revoked=told)
        assert set(reply["revoked"]) == {"ours", "theirs"}
        assert reply["clock"] == steered.remote.clock.value
    assert steered.ask("hello", from_node=NODE) is None
    assert steered.ask("election", id="1", topic="x") is None


def test_a_command_of_the_app_is_answered(make: Make) -> None:
    assert Steered(make("threads", 1)).ask("where") == NODE


def test_memory_is_told_as_celery_tells_it(make: Make) -> None:
    told = Steered(make("threads", 1)).ask("memsample")
    assert 1 < float(told.removesuffix("MB")) < 100_000


def test_a_queue_is_added_with_an_exchange_of_its_own(make: Make) -> None:
    steered = Steered(make("threads", 1))
    assert "ok" in steered.ask("add_consumer", queue="news", exchange="press", exchange_type="topic", routing_key="n.#")
    assert steered.remote.defined == {"news": {"exchange": "press", "exchange_type": "topic", "routing_key": "n.#"}}
    assert "ok" in steered.ask("add_consumer", queue="plain")
    assert list(steered.remote.defined) == ["news"]


HOSTILE: dict[str, tuple[str, dict[str, object]]] = {
    "a pool of a billion": ("pool_grow", {"n": 1e9}),
    "a pool of a fraction": ("pool_grow", {"n": 1.5}),
    "a pool of infinity": ("pool_grow", {"n": float("inf")}),
    "a pool of a list": ("pool_grow", {"n": [1]}),
    "an autoscale of a billion": ("autoscale", {"max": 10**12, "min": 1}),
    "a queue that is a list": ("add_consumer", {"queue": ["a"]}),
    "a queue that is a map": ("add_consumer", {"queue": {"a": 1}}),
    "a queue without a name": ("add_consumer", {"queue": ""}),
    "a queue of a megabyte": ("add_consumer", {"queue": "x" * (1 << 20)}),
    "a queue with an escape": ("add_consumer", {"queue": "a\x1b[2Jb"}),
    "60,000 ids": ("revoke", {"task_id": [str(number) for number in range(60_000)]}),
    "ids that are maps": ("revoke", {"task_id": [{"a": 1}]}),
    "an id of a megabyte": ("revoke", {"task_id": "x" * (1 << 20)}),
    "a limit that never ends": ("time_limit", {"task_name": "waits", "hard": 1e308}),
    "a limit that is no number": ("time_limit", {"task_name": "waits", "hard": float("nan")}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_command_without_bounds_is_refused_and_changes_nothing(make: Make, name: str) -> None:
    command, arguments = HOSTILE[name]
    world = make("prefork", 1)
    steered = Steered(world)
    before = (world.pool.limit, steered.ask("active_queues"), steered.ask("revoked"))
    error = steered.ask(command, **arguments)["error"]
    assert len(error) < 500
    assert (world.pool.limit, steered.ask("active_queues"), steered.ask("revoked")) == before
    assert steered.ask("ping") == {"ok": "pong"}


def test_what_the_manifest_allows_is_answered_and_nothing_else(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    steered = Steered(make("threads", 1), allow=("active", "ping", "where", "typo"))
    assert "commands that there are not: typo" in caplog.text
    assert steered.ask("ping") == {"ok": "pong"}
    assert steered.ask("where") == NODE, "a command of the app"
    assert steered.ask("active") == steered.ask("dump_active") == []
    for command in {*QUESTIONS, *ORDERS, *OLD_NAMES} - {"active", "dump_active", "ping"}:
        assert steered.ask(command) == {"error": f"no command {command!r}; there are active, dump_active, ping, where"}


def test_an_old_name_allows_the_command(make: Make) -> None:
    steered = Steered(make("threads", 1), allow=("dump_active",))
    assert steered.ask("active") == steered.ask("dump_active") == []
    assert "error" in steered.ask("ping")


def test_slots_grow_to_what_the_manifest_allows(make: Make) -> None:
    world = make("threads", 1)
    steered = Steered(world, max_slots=3)
    assert "ok" in steered.ask("pool_grow", n=2)
    assert "more than the 3 that" in steered.ask("pool_grow", n=1)["error"]
    assert "more than the 3 slots" in steered.ask("autoscale", max=4, min=1)["error"]
    assert world.pool.limit == 3


def test_many_ids_are_answered_and_logged_in_short(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    steered = Steered(make("threads", 1))
    caplog.set_level("INFO", logger="fleet.worker")
    answer = steered.ask("revoke", task_id=[f"task-{number}" for number in range(9000)])
    assert answer["ok"].endswith("and 8990 more flagged as revoked")
    assert len(steered.ask("revoked")) == 9000
    assert max(len(record.getMessage()) for record in caplog.records) < 500
