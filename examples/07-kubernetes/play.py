"""Plays rendered pods with podman on this machine: no cluster, no registry.

It does what a kubelet does with the objects that `fleet render --target kubernetes` writes: ConfigMaps become mounted
files, Secrets variables, `emptyDir` a folder in memory, probes run in the container, a pod is stopped with TERM and has
its grace. What it leaves out, it says: containers that ask an API server, limits, scalers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

REPORT_PORT = "FLEET_REPORT_PORT"
_LEASE = "FLEET_LEASE"
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:8192")
"""Below those of this machine: podman asks for more than a container may have in another one."""


class CannotPlay(Exception):
    """Podman is not there, or runs nothing here; the message says why, and what would help."""


def engine() -> list[str]:
    """A command line of podman that runs containers here. Raises CannotPlay."""
    if shutil.which("podman") is None:
        raise CannotPlay("podman is not installed; as root: apt-get install --no-install-recommends podman runc")
    problems = {}
    for runtime in ("", "runc", "crun"):
        if runtime and shutil.which(runtime) is None:
            continue
        command = ["podman", *(("--runtime", runtime) if runtime else ())]
        if not (problem := _tried(command)):
            return command
        problems[runtime or "its own runtime"] = problem
    told = "; ".join(f"with {name}: {problem}" for name, problem in problems.items())
    raise CannotPlay(f"podman is installed and runs no container here ({told})")


def _tried(command: list[str]) -> str:
    """Why a container of a program of this machine cannot be run; empty where it can."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("proc", "sys", "dev", "etc", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
    made = subprocess.run([*command, "import", "--quiet", "-"], input=data.getvalue(), capture_output=True, check=False)
    if made.returncode:
        return _last_line(made.stderr.decode())
    image = made.stdout.decode().strip()
    here = [one for one in ("/usr", "/lib", "/lib64", "/bin") if Path(one).exists()]
    folders = [word for one in here for word in ("--volume", f"{os.path.realpath(one)}:{one}:ro")]
    words = ["run", "--rm", *LIMITS, "--network", "host", "--uts", "private", *folders, image, "/usr/bin/env"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    subprocess.run([*command, "rmi", "--force", image], capture_output=True, check=False)
    return "" if done.returncode == 0 else _last_line(done.stderr)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def objects_in(folder: Path) -> list[Object]:
    """The objects of a rendered folder."""
    paths = sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
    return [one for path in paths for one in yaml.safe_load_all(path.read_text()) if one]


@dataclass
class PlayedPod:
    """One pod as a container. ``port``: where it tells what it does; 0 where it does not."""

    player: Player
    name: str
    spec: Object
    port: int = 0
    restarts: bool = True

    @property
    def container(self) -> Object:
        return self.spec["containers"][0]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in it, as ``kubectl exec`` does."""
        return self.player.podman("exec", self.name, *command)

    def probe(self, kind: str) -> bool:
        """One round of ``startupProbe``, ``livenessProbe`` or ``readinessProbe``."""
        probe = self.container[kind]
        if "exec" in probe:
            return self.run(*probe["exec"]["command"]).returncode == 0
        request = probe["httpGet"]
        try:
            with socket.create_connection(("127.0.0.1", int(request["port"])), timeout=probe["timeoutSeconds"]):
                return True
        except OSError:
            return False

    def start_up(self) -> None:
        """Until the startup probe passes, at most as often as it may fail. Raises RuntimeError with the pod's log."""
        if "startupProbe" not in self.container:
            return
        probe = self.container["startupProbe"]
        for _ in range(int(probe["failureThreshold"])):
            if self.probe("startupProbe"):
                return
            if not self.state()["Running"] and not self.restarts:
                break
            time.sleep(probe["periodSeconds"])
        raise RuntimeError(f"pod {self.name} does not become ready:\n{self.log()}")

    def state(self) -> Object:
        """``Running``, ``Pid``, ``ExitCode`` and more of its container."""
        said = self.player.podman("inspect", self.name).stdout
        found: Object = json.loads(said)[0]["State"]
        return found

    def log(self) -> str:
        """What its container has written."""
        done = self.player.podman("logs", self.name)
        return done.stdout + done.stderr

    def stop(self) -> int:
        """TERM, and KILL once its grace is over; the exit code."""
        self.player.podman("stop", "--time", str(self.spec["terminationGracePeriodSeconds"]), self.name)
        return int(self.state()["ExitCode"])

    def wait(self) -> int:
        """Until it has ended; the exit code."""
        return int(self.player.podman("wait", self.name).stdout.strip() or 1)


@dataclass
class Player:
    """Pods of rendered objects, until the ``with`` ends.

    command: of podman, see :func:`engine`.  folder: for what is mounted.  secrets: Secret -> key -> value.
    shared: a folder of this machine that all pods may write to, at the same path.
    """

    command: list[str]
    folder: Path
    objects: list[Object]
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shared: Path | None = None
    pods: list[PlayedPod] = field(default_factory=list)

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            self.podman("rm", "--force", "--time", "1", pod.name)

    def podman(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run podman; ``variables`` of its own environment, which ``--env NAME`` hands on."""
        around = {**os.environ, **variables}
        return subprocess.run([*self.command, *words], env=around, capture_output=True, text=True, check=False)

    def workloads(self, kind: str) -> list[Object]:
        """The Deployments or Jobs among the objects."""
        return [one for one in self.objects if one["kind"] == kind]

    def play(self, workload: Object, number: int = 1) -> PlayedPod:
        """One pod of a Deployment or a Job. Raises RuntimeError where podman does not start it."""
        spec, name = workload["spec"]["template"]["spec"], f"{workload['metadata']['name']}-{number}"
        pod = PlayedPod(self, name, spec, restarts=workload["kind"] == "Deployment")
        self.podman("rm", "--force", "--time", "1", name)
        values = dict(self._variables(pod))
        if REPORT_PORT in values:  # all pods are on this machine's one network
            pod.port = _free_port()
            values[REPORT_PORT] = str(pod.port)
        words = [
            *("run", "--detach", "--name", name, *LIMITS),
            *("--network", "host", "--uts", "private", "--hostname", name),
            *("--restart", "always" if pod.restarts else "no"),
            *(word for one in values for word in ("--env", one)),
            *self._volumes(pod),
            *(("--volume", f"{self.shared}:{self.shared}") if self.shared else ()),
            *(pod.container["image"], *pod.container["command"]),
        ]
        done = self.podman(*words, **values)
        self.pods.append(pod)
        if done.returncode:
            raise RuntimeError(f"podman does not start {name}: {done.stderr.strip()}")
        return pod

    def _variables(self, pod: PlayedPod) -> Iterator[tuple[str, str]]:
        for one in pod.container.get("env", ()):
            source = one.get("valueFrom", {})
            if one["name"] == _LEASE:
                continue
            if "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                yield one["name"], self.secrets[reference["name"]][reference["key"]]
            elif "fieldRef" in source:
                yield one["name"], pod.name
            else:
                yield one["name"], one["value"]

    def _volumes(self, pod: PlayedPod) -> Iterator[str]:
        volumes = {one["name"]: one for one in pod.spec.get("volumes", ())}
        for mount in pod.container.get("volumeMounts", ()):
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "configMap" in volume:
                yield from ("--volume", f"{self._written(volume['configMap']['name'])}:{path}:ro")
            elif "secret" in volume:
                files = self.secrets[volume["secret"]["secretName"]]
                yield from ("--volume", f"{_write(self.folder / volume['secret']['secretName'], files)}:{path}:ro")
            elif "emptyDir" in volume:  # as the kubelet makes it: everybody may write
                size = volume["emptyDir"].get("sizeLimit", "64Mi").removesuffix("i").lower()
                yield from ("--mount", f"type=tmpfs,destination={path},tmpfs-mode=0777,tmpfs-size={size}")

    def _written(self, config_map: str) -> Path:
        (found,) = [one for one in self.objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == config_map]
        return _write(self.folder / config_map, found["data"])


def _write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, text in files.items():
        fresh = folder / f"..{name}"
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(folder / name)
    return folder


def _free_port() -> int:
    """A port that nobody has, below those that the kernel gives to connections: one of these could have it by the time
    the pod listens, and the pod would go on without."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(min(10_000, lowest // 2), lowest), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise RuntimeError(f"no free port below {lowest}")


def needs_cluster(workload: Object) -> list[str]:
    """What asks an API server in the pods of a workload, and is left out here."""
    pod = workload["spec"]["template"]["spec"]
    waits = ["the wait for Jobs"] if pod.get("initContainers") else []
    env = pod["containers"][0].get("env", ())
    return [*waits, *(["the Lease"] if any(one["name"] == _LEASE for one in env) else [])]
