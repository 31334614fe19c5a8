"""The example of GitOps on a cluster: the script that fills a branch, and what the tools are told to leave alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.backends.kubernetes.names import RESTARTED

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "07-kubernetes"
WHO = {"GIT_AUTHOR_NAME": "ci", "GIT_AUTHOR_EMAIL": "ci@x", "GIT_COMMITTER_NAME": "ci", "GIT_COMMITTER_EMAIL": "ci@x"}


def git(where: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(where), *words], env={**os.environ, **WHO}, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A clone with the manifests and the example, and the repository it pushes to."""
    desk, origin = tmp_path / "desk", tmp_path / "origin.git"
    for name in ("manifests/prod.yaml", "examples/shop", "examples/07-kubernetes"):
        source, target = ROOT / name, desk / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    git(tmp_path, "init", "--quiet", "--bare", str(origin))
    git(desk, "init", "--quiet", "--initial-branch", "main")
    git(desk, "remote", "add", "origin", str(origin))
    committed(desk)
    return desk


def committed(desk: Path) -> None:
    git(desk, "add", "--all")
    git(desk, "commit", "--quiet", "-m", "change")


def rendered(desk: Path) -> str:
    fleet = desk.parent / "fleet"
    fleet.write_text(f'#!/bin/sh\nexec {sys.executable} -m fleet "$@"\n')
    fleet.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "SHOP_", "GIT_"))}
    environ = {**clean, **WHO, "FLEET": str(fleet), "PYTHONPATH": str(ROOT)}
    script = desk / "examples" / "07-kubernetes" / "gitops" / "render_to_branch.sh"
    done = subprocess.run(
        ["sh", str(script), "production"], cwd=desk, env=environ, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files(desk: Path) -> set[str]:
    return set(git(desk.parent / "origin.git", "ls-tree", "-r", "--name-only", "env/production").split())


def test_the_branch_holds_what_is_rendered_and_nothing_else(desk: Path) -> None:
    assert rendered(desk).startswith("env/production: ")
    assert files(desk) == {path.name for path in (EXAMPLE / "rendered" / "production").iterdir()}
    kept = git(desk.parent / "origin.git", "show", "env/production:group-mail.yaml")
    assert kept == (EXAMPLE / "rendered" / "production" / "group-mail.yaml").read_text()
    assert rendered(desk) == "env/production: nothing changed\n"

    overlay = desk / "examples" / "07-kubernetes" / "cluster.yaml"
    overlay.write_text(overlay.read_text().replace("    mail: {dependsOn: {check: completed}}", "    mail: null"))
    committed(desk)
    assert "file" in rendered(desk)
    assert "group-mail.yaml" not in files(desk)
    assert git(desk, "status", "--porcelain") == ""
    assert git(desk, "branch", "--list").split() == ["*", "main"], "nothing of it stays behind"
    assert len(git(desk, "worktree", "list").splitlines()) == 1


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLE / "gitops" / name).read_text()))


def test_what_scalers_and_people_own_is_left_to_them_and_nothing_else() -> None:
    (application,) = documents("argo-application.yaml")
    (rule,) = application["spec"]["ignoreDifferences"]
    assert rule["jqPathExpressions"] == [".spec.replicas", f'.spec.template.metadata.annotations."{RESTARTED}"']
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
    kustomization = documents("flux.yaml")[1]
    assert kustomization["spec"]["ignore"] == [{"paths": ["/spec/replicas"], "target": {"kind": "Deployment"}}]
    branches = {application["spec"]["source"]["targetRevision"], documents("flux.yaml")[0]["spec"]["ref"]["branch"]}
    assert branches == {"env/production"}
    (health,) = documents("argo-health.yaml")
    assert list(health["data"]) == ["resource.customizations.health.keda.sh_ScaledObject"]
