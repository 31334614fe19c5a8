"""A FleetSource file: every mistake at once, with its place and a hint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError
from fleet.operate.sync.models import FleetSource
from fleet.operate.sync.refs import Choice, Follows, NoSuchRef, choose
from fleet.operate.sync.remote import remote
from fleet.operate.sync.source import parse

GOOD = """\
apiVersion: workerfleet.dev/v1alpha1
kind: FleetSource
metadata: {name: shop-prod}
spec:
  git:
    url: https://git.example.com/shop/deploy.git
    ref: {branch: main}
    paths: [manifests/base.yaml, manifests/prod.yaml]
"""
WHOLE = """\
apiVersion: workerfleet.dev/v1alpha1
kind: FleetSource
metadata: {name: shop-prod}
spec:
  git:
    url: ssh://git@git.example.com/shop/deploy.git
    ref: {semver: ">=1.4 <2"}
    paths: [manifests/base.yaml, manifests/prod.yaml]
    auth: {sshKey: {file: deploy_key}, knownHosts: {file: known_hosts}}
    verify: {mode: TagAndHEAD, ssh: {allowedSigners: allowed_signers}, gpg: {keys: keys.asc}}
    allowForcePush: false
    maxSize: 64Mi
    timeout: 1m
  secrets: {gh-token: {file: token}, hook: {env: HOOK}}
  interval: 1m
  jitter: 0.1
  retry: {initial: 30s, max: 10m}
  timeout: 2h
  apply: window
  windows: {business: {cron: "0 9 * * 1-4", for: 8h, tz: Europe/Berlin}}
  prune: true
  maxDestroy: 30%
  selfHeal: {mode: warn}
  suspend: {until: "2026-12-01T08:00:00Z", reason: incident 412}
  status: {commit: {provider: gitlab, token: {secret: gh-token}, api: https://git.example.com/api/v4}, file: s.json}
  receiver: {hmacSecret: {secret: hook}, listen: 127.0.0.1:9292}
"""


def read(text: str) -> FleetSource:
    return parse(Source("source.yaml", text), environ={})


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return caught.value.message


def test_the_shortest_and_the_longest_hold() -> None:
    assert read(GOOD).spec.apply == "auto"
    assert read(WHOLE).spec.max_destroy == "30%"


MISTAKES = {
    "kind": ("kind: FleetSource", "kind: Fleet", "unknown kind 'Fleet'"),
    "unknown field": ("paths:", "path: x\n    paths:", "unknown field 'path'"),
    "two refs": ("{branch: main}", "{branch: main, tag: v1}", "branch and tag at once"),
    "no ref": ("{branch: main}", "{}", "nothing to follow"),
    "branch name": ("{branch: main}", "{branch: 'a..b'}", "not the name of a branch"),
    "branch flag": ("{branch: main}", "{branch: --upload-pack=x}", "not the name of a branch"),
    "short commit": ("{branch: main}", "{commit: abc123f}", "not a whole commit id"),
    "range": ("{branch: main}", "{semver: latest}", "not a bound of versions"),
    "no paths": ("[manifests/base.yaml, manifests/prod.yaml]", "[]", "must not be empty"),
    "absolute path": ("manifests/base.yaml", "/etc/passwd", "not a path within the repository"),
    "path outside": ("manifests/base.yaml", "../x.yaml", "not a path within the repository"),
    "path twice": ("manifests/base.yaml", "manifests/prod.yaml", "is here twice"),
    "http": ("https://", "http://", "http has no protection"),
    "git protocol": ("https://", "git://", "is no transport for manifests"),
    "ext": ("https://git.example.com/shop/deploy.git", "ext::sh -c x", "not the address of a repository"),
    "flag": ("https://git.example.com/shop/deploy.git", "--upload-pack=x", "not the address of a repository"),
    "password": ("https://", "https://me:secret@", "holds a name or a password"),
    "ssh without hosts": ("https://", "ssh://git@", "knownHosts is missing"),
    "verify nothing": ("    paths", "    verify: {}\n    paths", "no keys are given"),
    "tag of a branch": ("    paths", "    verify: {mode: Tag, gpg: {keys: k}}\n    paths", "has no tag"),
    "window without windows": ("  git:", "  apply: window\n  git:", "there are no windows"),
    "windows without window": ("  git:", "  windows: {a: {cron: '0 9 * * *', for: 1h}}\n  git:", "apply is auto"),
    "suspend without end": ("  git:", "  suspend: {reason: x}\n  git:", "'until' is required"),
    "suspend without reason": ("  git:", "  suspend: {until: '2026-12-01T08:00:00Z'}\n  git:", "'reason' is required"),
    "suspend without zone": (
        "  git:",
        "  suspend: {until: '2026-12-01T08:00:00', reason: x}\n  git:",
        "not a moment with its zone",
    ),
    "undeclared secret": ("    paths", "    auth: {token: {secret: nope}}\n    paths", "there is no secret 'nope'"),
    "jitter": ("  git:", "  jitter: 0.9\n  git:", "at most 0.5"),
    "max destroy": ("  git:", "  maxDestroy: lots\n  git:", "is not a valid name"),
    "unit": ("  git:", "  interval: 60\n  git:", "not a duration"),
}


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    told = refused(GOOD.replace(old, new, 1))
    assert message in told
    assert all(line.startswith(("source.yaml:", "  hint:")) for line in told.splitlines())


def test_all_mistakes_come_at_once() -> None:
    text = (
        WHOLE.replace("0 9 * * 1-4", "0 9 * *")
        .replace("Europe/Berlin", "Europe/Berln")
        .replace("mode: TagAndHEAD", "mode: Tags")
    )
    assert "unknown mode 'Tags'" in refused(text)
    told = refused(text.replace("mode: Tags", "mode: Tag"))
    assert "five fields" in told
    assert "unknown time zone 'Europe/Berln'" in told


@pytest.mark.parametrize(
    ("url", "transport", "project"),
    [
        ("ssh://git@git.example.com:2222/shop/deploy.git", "ssh", "shop/deploy"),
        ("git@git.example.com:shop/deploy.git", "ssh", "shop/deploy"),
        ("https://git.example.com/a/b/c.git", "https", "a/b/c"),
        ("http://127.0.0.1:8080/a/b", "http", "a/b"),
        ("file:///srv/git/deploy.git", "file", "srv/git/deploy"),
        ("/srv/git/deploy.git", "file", "srv/git/deploy"),
    ],
)
def test_addresses(url: str, transport: str, project: str) -> None:
    found = remote(url)
    assert (found.transport, found.project) == (transport, project)


@given(st.text(max_size=60))
def test_whatever_stands_there_is_an_address_or_refused(text: str) -> None:
    try:
        found = remote(text)
    except ValueError:
        return
    assert not found.url.startswith("-")
    assert found.transport in {"ssh", "https", "http", "file"}


shas = st.text("0123456789abcdef", min_size=40, max_size=40)
names = st.sampled_from(["main", "v1.0.0", "v1.2.0", "v2.0.0", "next"])


@given(st.dictionaries(names, shas), st.dictionaries(names, shas), st.sampled_from(["branch", "tag"]), names)
def test_a_ref_is_taken_from_its_own_kind_only(
    branches: dict[str, str], tags: dict[str, str], kind: str, name: str
) -> None:
    refs = {f"refs/heads/{key}": sha for key, sha in branches.items()}
    refs |= {f"refs/tags/{key}": sha for key, sha in tags.items()}
    there = branches if kind == "branch" else tags
    follows = Follows("branch" if kind == "branch" else "tag", name)
    if name in there:
        assert choose(follows, refs).commit == there[name]
    else:
        with pytest.raises(NoSuchRef):
            choose(follows, refs)


def test_an_annotated_tag_leads_to_its_commit() -> None:
    refs = {"refs/tags/v1.0.0": "a" * 40, "refs/tags/v1.0.0^{}": "b" * 40}
    assert choose(Follows("semver", "*"), refs) == Choice("refs/tags/v1.0.0", "b" * 40, "v1.0.0")
