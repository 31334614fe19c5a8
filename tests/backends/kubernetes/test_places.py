"""Which cluster a command means, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.cli import main
from tests.backends.kubernetes.conftest import Desk
from tests.backends.kubernetes.stand_in import StandIn


def test_no_cluster_is_exit_10_with_the_name_of_the_context(desk: Desk) -> None:
    """``elsewhere`` is also the kubeconfig's current context."""
    for verb in (("plan",), ("apply", "--yes"), ("status",), ("logs",), ("down", "--yes")):
        said = desk.fleet(*verb, "--context", "elsewhere", code=10)
        assert "the cluster of context 'elsewhere' does not answer at http://127.0.0.1:1" in said.err


def test_the_current_context_is_never_taken(desk: Desk) -> None:
    desk.manifest.write_text(desk.manifest.read_text().replace("context: here, ", ""))
    assert "which context of the cluster?" in desk.fleet("plan", code=64).err
    desk.fleet("plan", "--context", "here")
    desk.manifest.write_text(desk.manifest.read_text().replace("namespace: shop, ", ""))
    assert "which namespace of the cluster?" in desk.fleet("plan", "--context", "here", code=64).err


def test_a_context_that_is_not_there_is_guessed(desk: Desk) -> None:
    said = desk.fleet("plan", "--context", "her", code=64)
    assert "the kubeconfig has no context 'her'" in said.err
    assert "did you mean 'here'" in said.err


def test_no_kubeconfig_at_all(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "context 'here'" in desk.fleet("plan", code=64).err
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "runs in no pod" in desk.fleet("plan", "--context", "in-cluster", code=64).err


def test_a_fleet_of_a_cluster_is_not_started_on_the_host(desk: Desk) -> None:
    assert "target: kubernetes" in desk.fleet("apply", "--yes", "--target", "supervisor", code=64).err
    desk.manifest.write_text(desk.manifest.read_text().replace("  target: kubernetes\n", ""))
    assert "for a fleet in a cluster" in desk.fleet("plan", "--context", "here", code=64).err
    desk.fleet("plan", "--target", "kubernetes")


@pytest.mark.parametrize("verb", ["pause", "wait", "top", "diff", "events"])
def test_a_verb_for_hosts_says_so(desk: Desk, verb: str) -> None:
    assert "this verb is for a fleet on a host" in desk.fleet(verb, *(["mail"] if verb == "pause" else []), code=64).err


def test_a_cluster_without_keda_is_refused_before_anything_changes(desk: Desk, world: StandIn) -> None:
    if not isinstance(world, StandIn):
        pytest.skip("kinds are taken from the stand-in")
    del world.kinds["scaledobjects"]
    desk.write(more="    web: {pool: solo, autoscale: {max: 4}, queues: [web], rollout: {strategy: recreate}}\n")
    said = desk.fleet("apply", "--yes", code=9)
    assert "does not know ScaledObject of keda.sh/v1alpha1" in said.err
    assert world.names("deployments") == []
    assert main(("validate", str(desk.manifest))) == 0
