"""Workers forked from an image, under a real supervisord: they are as others are, and nothing depends on the image."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest

from fleet.core.spec import IMAGE_POOLS
from fleet.replica.image import ImageState, request, states
from fleet.state.paths import Places
from tests.conftest import eventually
from tests.replica.test_memory_merging import kernel_tells
from tests.system.worlds import World

pytestmark = pytest.mark.system

GROUPS = """\
    small: {pool: solo, replicas: 2, queues: [small]}
    wide: {pool: {type: threads, concurrency: 2}, replicas: 1, queues: [wide]}
"""


@pytest.fixture
def world(world: World) -> World:
    """Whose images have all the time that a busy machine needs: after a quarter of a second a worker starts cold."""
    world.environ["FLEET_IMAGE_ANSWER_SECONDS"] = "60"
    return world


def images(world: World) -> tuple[ImageState, ...]:
    return states(Places.of(world.home, "world").images)


def image(world: World) -> ImageState:
    (found,) = images(world)
    return found


def is_forked(pid: int) -> bool:
    """The kernel tells no relation to the image; but the environment begins with the mark that a fork writes."""
    return (Path("/proc") / str(pid) / "environ").read_bytes().startswith(b"FLEET_SPEC=")


def supervisord(world: World) -> int:
    return int((world.home / "world/run/supervisord.pid").read_text())


def other(world: World, name: str, pid: int) -> int:
    """The pid of the process that has taken the place of this one."""

    def look() -> int:
        found = world.pids().get(name)
        ready = world.workers()[name]["state"] == "ready"
        return found if found is not None and found != pid and ready else 0

    return eventually(look, every=0.5)


def asks_for_merging(pid: int) -> bool:
    return "ksm_merge_any: yes" in Path(f"/proc/{pid}/ksm_stat").read_text()


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:")]
    mask = int(line.split()[1], 16)
    return {number + 1 for number in range(64) if mask >> number & 1}


def test_forked_workers_are_supervisords_children_and_run_tasks(world: World) -> None:
    world.write(GROUPS)
    world.apply()
    pids = world.pids()
    assert len(pids) == 3
    assert image(world).phase == "ready"
    for name, pid in pids.items():
        process = psutil.Process(pid)
        assert is_forked(pid)
        assert process.ppid() == supervisord(world)
        assert os.getpgid(pid) == pid
        assert name in process.cmdline()[0]
        assert [Path(f"/proc/{pid}/fd/{number}").resolve().name for number in (0, 1, 2)] == [
            "null",
            f"{name}.log",
            f"{name}.log",
        ]
        assert not {signal.SIGPIPE, signal.SIGXFSZ} - ignored(pid), "a peer that goes away would end it"
        assert f"FLEET_PID={pid}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    world.send("work", "small", *[[str(world.done_file), number, 0.0] for number in range(20)])
    world.send("work", "wide", *[[str(world.done_file), number, 0.0] for number in range(20, 30)])
    eventually(lambda: len(world.done()) == 30)
    assert f"image {image(world).key} of world_tasks:tasks: ready" in world.fleet("status", "--fleet", "world").stdout
    keeper = image(world).pid
    world.fleet("down", "--fleet", "world", "-y")
    assert not any(psutil.pid_exists(pid) for pid in pids.values())
    assert images(world) == ()
    eventually(lambda: not psutil.pid_exists(keeper))


def test_each_pool_that_can_be_forked_is_and_runs_tasks_before_and_after_a_kill(world: World) -> None:
    """One image for all that are not patched; its first worker is of one pool, the others are imported when they are
    asked for. One more for those of gevent."""
    pools = sorted(IMAGE_POOLS)
    kinds = {name: f"{{type: {name}, concurrency: {1 if name == 'solo' else 2}}}" for name in pools}
    counts = {name: 2 if name == "gevent" else 1 for name in pools}  # an image is made for the second of its kind
    world.write(
        "".join(f"    {name}: {{pool: {kinds[name]}, replicas: {counts[name]}, queues: [{name}]}}\n" for name in pools)
    )
    world.apply()
    before = world.pids()
    assert [one.phase for one in images(world)] == ["ready", "ready"]
    assert {name: is_forked(pid) for name, pid in before.items()} == {
        f"{name}.{index}": True for name in pools for index in range(counts[name])
    }
    children = psutil.Process(before["prefork.0"]).children()
    assert len(children) == 2

    def run(first: int) -> None:
        numbers = range(first, first + 5 * len(pools))
        for number in numbers:
            world.send("work", pools[number % len(pools)], [str(world.done_file), number, 0.0])
        eventually(lambda: set(world.done()) >= set(numbers))

    run(0)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    after = {name: other(world, name, pid) for name, pid in before.items()}
    assert all(is_forked(pid) for pid in after.values())
    eventually(lambda: not any(child.is_running() for child in children))
    run(100)
    assert sorted(world.done()) == sorted(set(world.done()))


def test_what_an_app_registers_for_its_end_is_called_once_by_each_worker_when_that_ends(world: World) -> None:
    code, ends = world.root / "world_tasks.py", world.root / "ends"
    code.write_text(
        code.read_text() + f"\nimport atexit, os\nends = open({str(ends)!r}, 'a')\n"
        "atexit.register(lambda: print(os.getpid(), file=ends, flush=True))\n"
    )
    world.write(GROUPS)
    world.apply()
    assert all(is_forked(pid) for pid in world.pids().values())
    assert ends.read_text() == ""
    keeper = image(world).pid
    code.touch()
    world.fleet("restart", "small", "--fleet", "world", "-y")  # the image sees that the file has changed, and ends
    eventually(lambda: not psutil.pid_exists(keeper))
    world.fleet("down", "--fleet", "world", "-y")
    started = re.findall(
        r"spawned: '(?:small|wide)\S+' with pid (\d+)", (world.home / "world/log/supervisord.log").read_text()
    )
    assert sorted(ends.read_text().split()) == sorted(started)


def test_a_dead_or_silent_image_holds_nothing_up_and_is_replaced(world: World) -> None:
    world.environ["FLEET_IMAGE_ANSWER_SECONDS"] = "2"
    world.write(GROUPS)
    world.apply()
    first, victim = image(world).pid, world.pids()["small.0"]
    psutil.Process(first).suspend()
    os.kill(victim, signal.SIGKILL)
    cold = other(world, "small.0", victim)
    assert not is_forked(cold)
    os.kill(first, signal.SIGKILL)
    victim = world.pids()["small.1"]
    world.fleet("restart", "small", "--fleet", "world", "-y")
    assert image(world).pid != first
    assert is_forked(other(world, "small.1", victim))


def test_an_image_is_loaded_while_its_workers_wait_for_another_group(world: World) -> None:
    gate = world.root / "gate"
    first = f'{{replicas: 1, command: ["/bin/sleep", "600"], health: {{command: ["test", "-e", "{gate}"]}}}}'
    world.write(f"    gate: {first}\n    small: {{pool: solo, replicas: 2, queues: [small], dependsOn: [gate]}}\n")
    applying = world.popen("apply", str(world.manifest), "--yes")

    early = eventually(lambda: [one for one in images(world) if one.phase == "ready"], every=0.2)
    assert not [process for process in world.processes() if "small.0" in " ".join(process.cmdline())]
    assert not list(Places.of(world.home, "world").images.glob("*.launch")), "it may hold secrets"
    gate.touch()

    assert applying.wait() == 0
    assert image(world).pid == early[0].pid
    assert all(is_forked(world.pids()[name]) for name in ("small.0", "small.1"))


def test_changed_code_is_run_after_a_restart_as_without_an_image(world: World) -> None:
    world.write(GROUPS)
    world.apply()
    first = image(world).pid
    code = world.root / "world_tasks.py"
    code.write_text(code.read_text().replace('note(path, f"{number}")', 'note(path, f"{number + 100}")'))
    world.fleet("restart", "small", "--fleet", "world", "-y")
    assert image(world).pid != first
    world.send("work", "small", [str(world.done_file), 1, 0.0])
    eventually(lambda: set(world.done()) == {101})


def test_an_app_that_must_not_be_forked_starts_cold_and_doctor_says_why(world: World) -> None:
    code = world.root / "world_tasks.py"
    code.write_text(
        code.read_text() + "\nimport threading\nthreading.Thread(target=time.sleep, args=(600,), name='ticker', "
        "daemon=True).start()\n"
    )
    world.write(GROUPS)
    world.apply()
    assert not any(is_forked(pid) for pid in world.pids().values())
    assert "starts thread 'ticker'" in image(world).reason
    said = world.fleet("doctor", str(world.manifest), code=None).stdout
    assert "workers start without an image" in said
    assert "'ticker'" in said


def test_off_means_off_and_changes_no_running_worker(world: World) -> None:
    world.write(GROUPS)
    world.apply()
    pids = world.pids()
    text = world.manifest.read_text()
    world.manifest.write_text(text.replace("release: {", 'release: {image: "off", '))
    assert "release.image auto -> off" in world.fleet("plan", str(world.manifest), code=None).stdout
    world.apply()
    assert world.pids() == pids
    world.fleet("restart", "small", "--fleet", "world", "-y")
    assert not any(is_forked(pid) for name, pid in world.pids().items() if name.startswith("small"))


@kernel_tells
def test_memory_of_workers_and_of_their_image_is_merged_where_a_group_wants_it(world: World) -> None:
    plain, merged = "pool: solo, replicas: 2", "replicas: 2, mergeMemory: true"
    world.write(
        f"    plain: {{{plain}, queues: [plain]}}\n"
        f"    small: {{pool: solo, {merged}, queues: [small]}}\n"
        f"    kids: {{pool: {{type: prefork, concurrency: 2}}, {merged}, queues: [kids]}}\n"
    )
    world.apply()
    pids = world.pids()
    children = {f"child {child.pid}": child.pid for child in psutil.Process(pids["kids.0"]).children()}
    assert len(children) == 2
    asked = {name: asks_for_merging(pid) for name, pid in {**pids, **children}.items()}
    assert asked == {name: not name.startswith("plain") for name in asked}
    assert sorted(asks_for_merging(one.pid) for one in images(world)) == [False, True]


def test_a_worker_that_supervisord_does_not_wait_for_ends_at_once(world: World) -> None:
    world.write(GROUPS)
    world.apply()
    places = Places.of(world.home, "world")
    digest = world.workers()["small.0"]["digest"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(places.images / image(world).key))
        connection.send(request(str(places.spec_file("small.0")), digest))
        pid = int(connection.recv(64))
        assert psutil.Process(pid).ppid() == supervisord(world)
    eventually(lambda: not psutil.pid_exists(pid))
    assert len(world.pids()) == 3


def test_hooks_of_the_app_run_in_the_image_and_in_each_worker(world: World) -> None:
    code = world.root / "world_tasks.py"
    code.write_text(
        "import socket\nfrom fleet.forking import after_fork, before_fork\nkept = socket.socketpair()\n"
        "@before_fork\ndef hang_up():\n    for end in kept: end.close()\n    print('before', flush=True)\n"
        "@after_fork\ndef connect():\n    print('after', flush=True)\n" + code.read_text()
    )
    world.write(GROUPS)
    world.apply()
    logs = world.home / "world/log"
    assert "before\n" in (logs / f"image-{image(world).key}.log").read_text()
    assert all("after\n" in (logs / f"{name}.log").read_text() for name in world.pids())
