"""`fleet render --target kubernetes` as people run it: the example, secrets, what is refused."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from fleet.backends.kubernetes import objects
from fleet.core.manifest.parse import from_document
from fleet.errors import Refused
from tests.core.texts import fleet, said

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "07-kubernetes"
CLUSTER = "  kubernetes: {image: shop:1}\n"
BROKER = "  broker: {url: redis://redis/0}\n"


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "SHOP_"))}
    command = [sys.executable, "-m", "fleet", "render", "--target", "kubernetes", *words]
    return subprocess.run(command, cwd=ROOT, env={**clean, **environ}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("environment", "overlays"), [("production", ["cluster"]), ("staging", ["cluster", "staging"])]
)
def test_the_example_is_what_is_rendered(environment: str, overlays: list[str], tmp_path: Path) -> None:
    """To refresh: ``sh examples/07-kubernetes/render.sh``."""
    done = run("manifests/prod.yaml", *(str(EXAMPLE / f"{name}.yaml") for name in overlays), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    kept = EXAMPLE / "rendered" / environment
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        path.name: path.read_text() for path in kept.iterdir()
    }


def test_no_secret_is_read_and_none_is_in_the_text(tmp_path: Path) -> None:
    value = "s3cr3t-never-shown"
    (tmp_path / "held").write_text(value)
    (tmp_path / "held").chmod(0o600)
    read = tmp_path / "read"
    manifest = tmp_path / "fleet.yaml"
    secrets = (
        f"  secrets: {{broker-url: {{file: held}}, key: {{env: HELD}}, other: {{exec: [touch, {read}]}}}}\n"
        "  concurrency: 9\n"
        "  kubernetes: {image: shop:1, keda: {broker: redis, address: 'redis:6379', password: key}}\n"
    )
    group = "a: {pool: solo, autoscale: {max: 3}, queues: [q], secretEnv: {A: key, B: other}}"
    text = fleet(group, more=secrets).replace("broker: embedded", "broker: {url: {secret: broker-url}}")
    manifest.write_text(text)
    done = run(str(manifest), HELD=value)
    assert done.returncode == 0, done.stderr
    assert "secretKeyRef" in done.stdout
    assert "secretTargetRef" in done.stdout
    for hidden in (value, base64.b64encode(value.encode()).decode(), value[::-1]):
        assert hidden not in done.stdout + done.stderr
    assert not read.exists()


def test_what_only_a_host_can_do_is_said(tmp_path: Path) -> None:
    group = "a: {pool: solo, replicas: 1, queues: [q], user: nobody}"
    more = CLUSTER + "  metrics: {listen: 127.0.0.1:9000}\n"
    manifest = tmp_path / "fleet.yaml"
    manifest.write_text(fleet(group, more=more).replace("broker: embedded", "broker: {url: redis://redis/0}"))
    done = run(str(manifest))
    assert done.returncode == 0, done.stderr
    assert "note: user and group of a are not kept" in done.stderr
    assert "note: metrics.listen is not kept" in done.stderr


REFUSED = {
    "no cluster": (BROKER, "a: {pool: solo, replicas: 1, queues: [q]}", "no spec.kubernetes"),
    "embedded": (CLUSTER + "  broker: embedded\n", "a: {pool: solo, replicas: 1, queues: [q]}", "one host"),
    "password": (CLUSTER + "  broker: {url: 'redis://:pw@redis/0'}\n", "a: {pool: solo, replicas: 1}", "a password"),
    "pool": (CLUSTER + BROKER, "a: {replicas: 1, queues: [q]}", "leaves its pool to the app"),
    "slots": (CLUSTER + BROKER, "a: {pool: prefork, replicas: 1, queues: [q]}", "leaves its slots to this machine"),
    "name": (CLUSTER + BROKER, "a-: {pool: solo, replicas: 1, queues: [q]}", "ends with a letter or a digit"),
    "queues": (
        CLUSTER + BROKER + "  concurrency: 9\n",
        "a: {pool: solo, autoscale: {max: 2}}",
        "leaves its queues to the app",
    ),
    "address": (
        CLUSTER + "  broker: {url: 'sqs://'}\n  concurrency: 9\n",
        "a: {pool: solo, autoscale: {max: 2}, queues: [q]}",
        "nothing tells KEDA how to reach the broker",
    ),
    "namespace": (
        "  kubernetes: {image: shop:1, scaler: fleet}\n" + BROKER + "  concurrency: 9\n",
        "a: {pool: solo, autoscale: {max: 2}, queues: [q]}",
        "needs to know the namespace",
    ),
    "image of the controller": (
        "  kubernetes: {namespace: x, scaler: fleet, groups: {a: {image: shop:1}}}\n" + BROKER + "  concurrency: 9\n",
        "a: {pool: solo, autoscale: {max: 2}, queues: [q]}",
        "needs an image for the controller",
    ),
    "image": ("  kubernetes: {namespace: x}\n" + BROKER, "a: {pool: solo, replicas: 1, queues: [q]}", "has no image"),
    "selector": (
        "  kubernetes: {image: x, groups: {a: {patch: {spec: {selector: {x: y}}}}}}\n" + BROKER,
        "a: {pool: solo, replicas: 1, queues: [q]}",
        "patch.spec.selector cannot be changed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_cluster_cannot_have_is_refused_with_a_hint(case: str) -> None:
    more, group, message = REFUSED[case]
    document = yaml.safe_load(fleet(group).replace("  broker: embedded\n", more))
    with pytest.raises(Refused, match=message) as refused:
        objects.files(from_document(document, name="given").manifest, document)
    assert refused.value.hint


def test_names_under_kubernetes_are_checked_with_their_place() -> None:
    more = "  kubernetes: {image: x, groups: {b: {}}, secrets: {nope: {name: s, key: k}}, keda: {password: lost}}\n"
    problems = said(fleet("a: {pool: solo, replicas: 1, queues: [q]}", more=more))
    assert "1.yaml:7:" in problems
    for part in ("no group 'b'", "secret 'nope' is not declared", "secret 'lost' is not declared"):
        assert part in problems


def test_a_patch_is_merged_and_stays_what_kubernetes_takes() -> None:
    more = "  kubernetes: {image: x, groups: {a: {patch: {spec: {template: {spec: {hostNetwork: true}}}}}}}\n" + BROKER
    text = fleet("a: {pool: solo, replicas: 1, queues: [q]}").replace("  broker: embedded\n", more)
    made = objects.files(from_document(yaml.safe_load(text), name="given").manifest)
    deployment = next(one for one in made["group-a.yaml"] if one["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["hostNetwork"] is True
    assert deployment["spec"]["replicas"] == 1
    kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_a_live_change_keeps_the_pods_and_a_lasting_one_replaces_them() -> None:
    def rendered(group: str) -> tuple[str, str]:
        text = fleet(f"a: {{{group}}}").replace("  broker: embedded\n", CLUSTER + BROKER)
        made = objects.files(from_document(yaml.safe_load(text), name="given").manifest)["group-a.yaml"]
        deployment = next(one for one in made if one["kind"] == "Deployment")
        spec = next(one for one in made if one["kind"] == "ConfigMap")["data"]["spec.json"]
        return str(deployment["spec"]["template"]), spec

    base = rendered("pool: {type: threads, concurrency: 2}, replicas: 1, queues: [q]")
    live = rendered("pool: {type: threads, concurrency: 3}, replicas: 1, queues: [q, r]")
    lasting = rendered("pool: {type: threads, concurrency: 2}, replicas: 1, queues: [q], env: {A: b}")
    assert base[0] == live[0]
    assert base[1] != live[1]
    assert base[0] != lasting[0]


CHECK = "health: {%s, interval: 3s, timeout: 1500ms, failures: 2, readyTimeout: 20s}"
EXEC = ["python3", "-P", "-m", "fleet.replica.health_check", "/run/fleet/shop/run/specs/a.json"]
REQUEST = {"path": "/ready", "port": 8000, "httpHeaders": [{"name": "Host", "value": "shop.org"}]}
OF_COMMAND, OF_WORKER = "command: [serve], replicas: 1", "pool: solo, queues: [q], replicas: 1"


@pytest.mark.parametrize(
    ("group", "check", "asked", "seconds"),
    [
        (OF_COMMAND, "http: {port: 8000, path: /ready, host: shop.org}", REQUEST, 2),
        (OF_COMMAND, "command: [check]", None, 12),
        (OF_WORKER, "http: {port: 8000}", None, 12),
        (OF_WORKER, "command: [check]", None, 12),
    ],
)
def test_a_health_check_becomes_the_probes(group: str, check: str, asked: object, seconds: int) -> None:
    text = fleet(f"a: {{{group}, {CHECK % check}, waitFor: {{urls: ['tcp://db:1'], timeout: 40s}}}}", more=CLUSTER)
    text = text.replace("broker: embedded", "broker: {url: redis://redis/0}")
    made = objects.files(from_document(yaml.safe_load(text), name="given").manifest)
    (deployment,) = [one for one in made["group-a.yaml"] if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for name, kind, times in (
        ("startupProbe", "ready", {"periodSeconds": 2, "failureThreshold": 30}),
        ("livenessProbe", "live", {"periodSeconds": 3, "failureThreshold": 2}),
        ("readinessProbe", "ready", {"periodSeconds": 3, "failureThreshold": 2}),
    ):
        how = {"httpGet": asked} if asked else {"exec": {"command": [*EXEC, kind]}}
        probe = {key: value for key, value in container[name].items() if key != "initialDelaySeconds"}
        assert probe == {**how, "timeoutSeconds": seconds, **times}
