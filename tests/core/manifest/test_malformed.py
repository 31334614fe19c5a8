"""Hundreds of manifests that are wrong: each is refused with a place, a sentence and a hint."""

from __future__ import annotations

import copy
import gzip
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError
from tests.core.texts import ENVIRON, GOOD, document, fleet, problems

Place = tuple[str | int, ...]
# Maps whose keys people choose: a new key there is not unknown.
NAMED = {"groups", "secrets", "env", "secretEnv", "queues", "dependsOn", "connections", "labels"}


class Raw(str):
    """Text that goes into the YAML as it is, without quotes."""


class Twice(str):
    """A key that is written twice."""


def flow(value: Any) -> str:
    """YAML in flow style, with raw words and duplicate keys where a test wants them."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        pairs = [f"{flow_key(key)}: {flow(child)}" for key, child in value.items() for _ in range(times(key))]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return json.dumps(value)


def flow_key(key: str) -> str:
    return str(key) if isinstance(key, Raw) else json.dumps(str(key))


def times(key: str) -> int:
    return 2 if isinstance(key, Twice) else 1


def maps(value: Any, path: Place = ()) -> Iterator[Place]:
    if isinstance(value, dict):
        yield path
        for key, child in value.items():
            yield from maps(child, (*path, key))


def leaves(value: Any, path: Place = ()) -> Iterator[Place]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, (*path, index))
    else:
        yield path


def at(value: Any, path: Place) -> Any:
    for part in path:
        value = value[part]
    return value


def changed(path: Place, new: Any) -> str:
    values = document()
    at(values, path[:-1])[path[-1]] = new
    return flow(values)


def renamed(path: Place, key: str) -> str:
    values = document()
    parent = at(values, path[:-1])
    entries = [(key if name == path[-1] else name, child) for name, child in parent.items()]
    parent.clear()
    parent.update(entries)
    return flow(values)


def name_of(path: Place) -> str:
    return ".".join(map(str, path)) or "top"


def unknown_keys() -> Iterator[tuple[str, str]]:
    for path in maps(document()):
        if path[-1:] and path[-1] in NAMED:
            continue
        values = document()
        at(values, path)["bogus"] = 1
        yield f"unknown key in {name_of(path)}", flow(values)


def misspelt_keys() -> Iterator[tuple[str, str]]:
    for path in {(*parent, key) for parent in maps(document()) for key in at(document(), parent)}:
        if len(path) > 1 and path[-2] in NAMED:
            continue
        key = str(path[-1])
        yield f"misspelt {name_of(path)}", renamed(path, key[:-1] if len(key) > 3 else key * 2)


def duplicate_keys() -> Iterator[tuple[str, str]]:
    for parent in maps(document()):
        first = next(iter(at(document(), parent)))
        yield f"duplicate {name_of((*parent, first))}", renamed((*parent, first), Twice(first))


def wrong_types() -> Iterator[tuple[str, str]]:
    for path in leaves(document()):
        yield f"list in {name_of(path)}", changed(path, [["x"]])
        yield f"map in {name_of(path)}", changed(path, {"x": {"y": "z"}})


def yaml_traps() -> Iterator[tuple[str, str]]:
    words = ["no", "Yes", "on", "OFF", "012", "0o17", "0x1F", "12:30:45", "1_000", "2024-01-01", ".inf", "!!str x"]
    for number, path in enumerate(leaves(document())):
        word = words[number % len(words)]
        yield f"{word} in {name_of(path)}", changed(path, Raw(word))
    for word in words:
        yield f"{word} as a variable", changed(("spec", "groups", "webhooks", "env", "X"), Raw(word))
        yield f"{word} as a key", flow({**document(), Raw(word): 1})


def maps_that_are_none() -> Iterator[tuple[str, str]]:
    for path in maps(document()):
        if path:
            yield f"text for {name_of(path)}", changed(path, "text where a map belongs")
            yield f"number for {name_of(path)}", changed(path, 7)


GROUP: Place = ("spec", "groups", "thumbs")
BY_HAND: dict[str, str | bytes] = {
    "empty": "",
    "only comments": "# nothing\n\n# here\n",
    "only a separator": "---\n",
    "text": "hello",
    "number": "42",
    "list": "- a\n- b\n",
    "null": "null",
    "two documents": GOOD + "---\n" + GOOD,
    "empty second document": GOOD + "---\n",
    "tab": GOOD.replace("  app:", "\tapp:"),
    "unclosed quote": GOOD.replace('"20"', '"20'),
    "unclosed brace": GOOD.replace("{TZ: UTC}", "{TZ: UTC"),
    "unclosed bracket": GOOD.replace("[mail]", "[mail", 1),
    "bad indentation": GOOD.replace("    thumbs:", "   thumbs:"),
    "colon in a value": GOOD.replace("app: shop.worker:app", "app: shop: app"),
    "percent": "%nonsense\n" + GOOD,
    "at sign": GOOD.replace("[thumbs]", "[@thumbs]"),
    "backtick": GOOD.replace("[thumbs]", "[`thumbs`]"),
    "nul": GOOD.replace("UTC", "U\x00C"),
    "bell": GOOD.replace("UTC", "U\x07C"),
    "escape": GOOD.replace("UTC", "U\x1bC"),
    "nul by escape": GOOD.replace("UTC", '"U\\0C"'),
    "surrogate by escape": GOOD.replace("UTC", '"\\ud800"'),
    "nul in a key": GOOD.replace("TZ:", '"T\\0Z":'),
    "backwards text": GOOD.replace("UTC", "U\u202eC"),
    "line separator": GOOD.replace("UTC", "U\u2028C"),
    "byte order mark inside": GOOD.replace("UTC", "U\ufeffC"),
    "utf-16": GOOD.encode("utf-16"),
    "latin-1": GOOD.replace("UTC", "Zürich").encode("latin-1"),
    "gzip": gzip.compress(GOOD.encode()),
    "elf": b"\x7fELF" + struct.pack("<16Q", *range(16)),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "zeroes": bytes(4096),
    "too large": GOOD + "#" * (1 << 20),
    "long line of braces": "{" * 100_000,
    "long line of brackets": "[" * 100_000,
    "deep block": "\n".join("  " * depth + "a:" for depth in range(300)),
    "many values": "a: [" + "1, " * 200_000 + "]",
    "long scalar": changed(("spec", "app"), "x" * 900_000),
    "many groups": fleet("\n    ".join(f"g{number}: {{replicas: 1, bogus: 1}}" for number in range(3_000))),
    "alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefgh", "bcdefghi", strict=True)),
    "too many aliases": "a: &a x\nb: [" + "*a, " * 1001 + "]\n",
    "alias of itself": "a: &a [*a]\n",
    "unknown alias": "a: *nowhere\n",
    "alias as a key": "a: &a x\n*a : y\n",
    "merge key without a map": GOOD.replace("    thumbs:\n", "    thumbs:\n      <<: 3\n"),
    "merge key with a list of words": GOOD.replace("    thumbs:\n", "    thumbs:\n      <<: [a, b]\n"),
    "two merge keys": GOOD.replace(
        "    thumbs:\n", "    thumbs:\n      <<: {paused: true}\n      <<: {paused: true}\n"
    ),
    "complex key": "? [a, b]\n: c\n",
    "map as a key": "? {a: b}\n: c\n",
    "number as a key": GOOD.replace("TZ:", "8080:"),
    "null as a key": GOOD.replace("TZ:", "~:"),
    "python tag": GOOD.replace("UTC", "!!python/object/apply:os.system ['true']"),
    "own tag": GOOD.replace("UTC", "!vault x"),
    "bare tag": GOOD.replace("UTC", "! x"),
    "binary tag": GOOD.replace("UTC", "!!binary aGVsbG8="),
    "set tag": GOOD.replace("{TZ: UTC}", "!!set {TZ}"),
    "huge number": GOOD.replace("concurrency: 80", "concurrency: " + "9" * 5000),
    "huge exponent": GOOD.replace("weight: 3", "weight: 1e999"),
    "nan": GOOD.replace("weight: 3", "weight: .nan"),
    "other version": GOOD.replace("v1alpha1", "v2"),
    "other kind": GOOD.replace("kind: Fleet", "kind: Deployment"),
    "kubernetes deployment": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 3}\n",
    "no version": GOOD.replace("apiVersion: workerfleet.dev/v1alpha1\n", ""),
    "no kind": GOOD.replace("kind: Fleet\n", ""),
    "no name": GOOD.replace("name: shop, ", ""),
    "no spec": GOOD[: GOOD.index("spec:")],
    "no groups": GOOD[: GOOD.index("  groups:")],
    "groups without any": GOOD[: GOOD.index("    thumbs:")],
    "empty groups": GOOD[: GOOD.index("  groups:")] + "  groups: {}\n",
    "group without anything": fleet("a:"),
    "group without fields": fleet("a: {}"),
    "queue without value": fleet("a: {replicas: 1, queues: {x: }}"),
    "variable without value": fleet("a: {replicas: 1, env: {X: }}"),
    "null item": fleet("a: {replicas: 1, command: [ls, null]}"),
    # names
    **{
        f"fleet called {name!r}": changed(("metadata", "name"), name)
        for name in [
            "",
            "Shop",
            "9shop",
            "-shop",
            "sh op",
            "shop.",
            "../etc",
            "shop\n",
            "x" * 32,
            "šop",
            "a/b",
            "a;b",
            "$(id)",
        ]
    },
    **{
        f"group called {name!r}": flow(
            {**document(), "spec": {**document()["spec"], "groups": {name: {"replicas": 1}}}}
        )
        for name in [
            "",
            "Thumbs",
            "a.b",
            "a b",
            "../../x",
            "a\nb",
            "a;b",
            "%(x)s",
            "[x]",
            "a=b",
            "fleet-broker",
            "fleet-x",
        ]
    },
    **{
        f"queue called {name!r}": changed((*GROUP, "queues"), [name])
        for name in ["", "a b", "a\nb", "a;rm", "$x", "ü", "x" * 201]
    },
    **{
        f"variable called {name!r}": changed((*GROUP, "env"), {name: "x"})
        for name in ["", "A B", "A=B", "1A", "A\nB", "A;B", "FLEET_NAME", "FLEET_", "A-B", "Ä", "X" * 300]
    },
    **{
        f"app {name!r}": changed(("spec", "app"), name)
        for name in ["", "a b", "a;b", "a:b:c", "/etc/passwd", "-x", ":app", "os; import x", "a\n"]
    },
    "reserved secret variable": changed((*GROUP, "secretEnv"), {"FLEET_X": "stripe-key"}),
    "variable with nul": changed((*GROUP, "env"), {"X": "a\x00b"}),
    "argument with nul": changed(("spec", "groups", "beat", "command"), ["ls", "a\x00b"]),
    "path with nul": changed(("spec", "release", "workdir"), "/srv\x00/x"),
    "variable too long": changed((*GROUP, "env"), {"X": "x" * 131_070}),
    # single values
    "negative replicas": changed((*GROUP, "replicas"), -1),
    "replicas and a half": changed((*GROUP, "replicas"), 1.5),
    "replicas as text": changed((*GROUP, "replicas"), "10"),
    "too many replicas": changed((*GROUP, "replicas"), 100_000),
    "true replicas": changed((*GROUP, "replicas"), True),
    "replicas from the environment": changed((*GROUP, "replicas"), "${env:GIT_SHA}"),
    "number for a variable": changed((*GROUP, "env"), {"PORT": 8080}),
    "true for a variable": changed((*GROUP, "env"), {"DEBUG": True}),
    "paused by a word": changed((*GROUP, "paused"), "true"),
    "priority 10": changed((*GROUP, "queues"), {"x": {"priority": 10}}),
    "weight 0": changed(("spec", "groups", "mail", "share", "weight"), 0),
    "negative weight": changed(("spec", "groups", "mail", "share", "weight"), -2),
    "unit 0": changed(("spec", "groups", "mail", "share", "unit"), 0),
    "prefetch 0": changed(("spec", "groups", "reports", "task", "prefetch"), 0),
    **{
        f"duration {text!r}": changed(("spec", "groups", "reports", "drain"), {"timeout": text})
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "-5s",
            "5 minutes",
            "1e3s",
            "10s\n",
            "٣s",
            "999999d",
            "9" * 400 + "d",
            600,
            1.5,
        ]
    },
    **{
        f"size {text!r}": changed(("spec", "budgets", "memory"), text)
        for text in ["", "big", "10GB", "-1Gi", "1 Gi", "9" * 400, "9999999Ti", 1024, "1e9", "512mi"]
    },
    "limit 0s": changed(("spec", "groups", "reports", "task", "timeLimit"), "0s"),
    "unknown pool": changed((*GROUP, "pool"), "gevnt"),
    "unknown type of pool": changed((*GROUP, "pool"), {"type": "processes"}),
    "command as text": changed(("spec", "groups", "beat", "command"), "celery beat"),
    "empty command": changed(("spec", "groups", "beat", "command"), []),
    "empty program": changed(("spec", "groups", "beat", "command"), [""]),
    "queues as text": changed((*GROUP, "queues"), "thumbs"),
    "queue twice": changed((*GROUP, "queues"), ["a", "a"]),
    "queue as number": changed((*GROUP, "queues"), [1]),
    "unknown broker": changed(("spec", "broker"), "embeded"),
    "url as broker": changed(("spec", "broker"), "redis://localhost"),
    "broker without url": changed(("spec", "broker"), {}),
    "broker url without scheme": changed(("spec", "broker", "url"), "localhost:6379"),
    "empty broker url": changed(("spec", "broker", "url"), ""),
    "empty workdir": changed(("spec", "release", "workdir"), ""),
    # the environment
    "variable not set": changed((*GROUP, "env"), {"X": "${env:NOT_SET}"}),
    "no name in a reference": changed((*GROUP, "env"), {"X": "${env:}"}),
    "bad name in a reference": changed((*GROUP, "env"), {"X": "${env:A B}"}),
    "unclosed reference": changed((*GROUP, "env"), {"X": "${env:GIT_SHA"}),
    "shell default": changed((*GROUP, "env"), {"X": "${env:A-b}"}),
    # several fields
    "replicas and share": changed((*GROUP, "share"), {"min": 1}),
    "replicas and autoscale": changed((*GROUP, "autoscale"), {"min": 1}),
    "share and autoscale": changed(("spec", "groups", "mail", "autoscale"), {"min": 1}),
    "no replicas": fleet("a: {pool: solo}"),
    "command without replicas": fleet("a: {command: [ls]}"),
    "share without budget": fleet("a: {pool: solo, share: {min: 1}}"),
    "autoscale without budget": fleet("a: {pool: solo, autoscale: {min: 1}}"),
    "budget too small": changed(("spec", "concurrency"), 10),
    "budget too small for the mins": changed(("spec", "groups", "mail", "share"), {"min": 70}),
    "min over max": changed(("spec", "groups", "mail", "share"), {"min": 5, "max": 2}),
    "no multiple of unit": changed(("spec", "groups", "mail", "share"), {"min": 1, "max": 3, "unit": 4}),
    "idleAfter without min 0": changed(("spec", "groups", "webhooks", "autoscale", "idleAfter"), "5m"),
    "solo with ten slots": changed((*GROUP, "pool"), {"type": "solo", "concurrency": 10}),
    "recycling solo": changed((*GROUP, "pool"), {"type": "solo", "maxTasksPerChild": 10}),
    "recycling threads": changed((*GROUP, "pool"), {"type": "threads", "maxTasksPerChild": 10}),
    "memory of threads": changed((*GROUP, "pool"), {"type": "threads", "maxMemoryPerChild": "1Gi"}),
    "age of threads": changed((*GROUP, "pool"), {"type": "threads", "maxAgePerChild": "1h"}),
    "start method of gevent": changed((*GROUP, "pool"), {"type": "gevent", "startMethod": "fork"}),
    "class of prefork": changed((*GROUP, "pool"), {"type": "prefork", "class": "a:B"}),
    "soft limit not below hard limit": changed(("spec", "groups", "reports", "task", "softTimeLimit"), "10m"),
    "limit longer than redelivery": changed(("spec", "groups", "reports", "task", "timeLimit"), "60m"),
    "drain longer than redelivery": changed(("spec", "groups", "reports", "drain"), {"timeout": "55m"}),
    "command with app": changed(("spec", "groups", "beat", "app"), "shop:app"),
    "command with pool": changed(("spec", "groups", "beat", "pool"), "solo"),
    "command with queues": changed(("spec", "groups", "beat", "queues"), ["a"]),
    "command with limits": changed(("spec", "groups", "beat", "task"), {"timeLimit": "5s"}),
    "command with a share": fleet("a: {command: [ls], share: {min: 1}}", more="  concurrency: 5\n"),
    "capacity of a worker": changed((*GROUP, "capacity"), {"slots": 3}),
    "no app": fleet("a: {replicas: 1}").replace("  app: shop:app\n", ""),
    "celery without app": fleet("a: {worker: celery, replicas: 1}").replace("  app: shop:app\n", ""),
    "no broker": fleet("a: {replicas: 1}").replace("  broker: embedded\n", ""),
    "celery with asyncio": changed(GROUP, {"worker": "celery", "pool": "asyncio", "replicas": 1}),
    "celery with attempts": changed(GROUP, {"worker": "celery", "task": {"maxAttempts": 2}, "replicas": 1}),
    "undeclared broker secret": changed(("spec", "broker", "url", "secret"), "nope"),
    "undeclared secret": changed((*GROUP, "secretEnv"), {"X": "nope"}),
    "secret without source": changed(("spec", "secrets", "stripe-key"), {}),
    "secret with two sources": changed(("spec", "secrets", "stripe-key"), {"file": "/x", "env": "X"}),
    "variable and secret variable": changed((*GROUP, "secretEnv"), {"TZ": "stripe-key"}),
    "depends on nobody": changed((*GROUP, "dependsOn"), ["nobody"]),
    "depends on itself": changed((*GROUP, "dependsOn"), ["thumbs"]),
    "circle of two": changed(("spec", "groups", "mail", "dependsOn"), ["beat"]),
    "dependency twice": changed((*GROUP, "dependsOn"), ["mail", "mail"]),
    "recreate with surge": changed((*GROUP, "rollout"), {"strategy": "recreate", "maxSurge": 1}),
    "rollout that cannot move": changed((*GROUP, "rollout"), {"maxSurge": 0, "maxUnavailable": 0}),
    "back-off upside down": changed((*GROUP, "restart"), {"backoff": {"initial": "5m", "max": "1s"}}),
    "ready too late": changed((*GROUP, "health"), {"readyAfter": "5m"}),
    "broken defaults": changed(("spec", "defaults"), {"replicas": "x", "bogus": 1}),
    "null of an unknown field": changed((*GROUP, "replcas"), None),
}

GENERATED = [
    *unknown_keys(),
    *misspelt_keys(),
    *duplicate_keys(),
    *wrong_types(),
    *yaml_traps(),
    *maps_that_are_none(),
]
CORPUS = dict(sorted(GENERATED)) | BY_HAND


def assert_refused_well(text: str | bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        parse([Source("fleet.yaml", text)], environ=ENVIRON)
    assert caught.value.exit_code == 3
    assert caught.value.problems
    for problem in caught.value.problems[:100]:
        assert problem.line > 0, problem
        assert problem.column > 0, problem
        assert problem.source == "fleet.yaml"
        assert problem.message.strip(), problem
        assert problem.hint.strip(), problem
        assert "\n" not in problem.message + problem.path, problem
        assert len(str(problem)) < 700, problem
        assert "pydantic" not in str(problem), problem


def test_the_good_manifest_is_good_in_both_styles() -> None:
    assert problems(GOOD) == []
    assert problems(flow(document())) == []


@pytest.mark.parametrize("name", CORPUS)
def test_wrong_manifest_is_refused_with_place_and_hint(name: str) -> None:
    assert_refused_well(CORPUS[name])


def test_corpus_is_large() -> None:
    assert len(CORPUS) > 400


def test_truncated_file_is_refused_or_is_whole_up_to_there() -> None:
    """Cut anywhere: refused, or what is left is a manifest whose groups are among those of the whole."""
    whole = set(document()["spec"]["groups"])
    data, accepted = GOOD.encode(), []
    for end in range(0, len(data) - 1, 7):
        found = problems(data[:end])
        assert all(problem.line > 0 and problem.message for problem in found)
        accepted += [] if found else [data[:end]]
    for text in accepted:
        assert set(parse([Source("fleet.yaml", text)], environ=ENVIRON).manifest.spec.groups) <= whole
    assert len(accepted) < 60


def test_binary_junk_is_refused() -> None:
    dice = random.Random(20240501)
    for size in (1, 2, 10, 100, 1000, 10_000):
        for _ in range(20):
            assert_refused_well(dice.randbytes(size))


def test_problems_of_a_hopeless_file_are_counted_and_not_all_listed() -> None:
    found = problems(BY_HAND["many groups"])
    assert len(found) == 101
    assert found[-1].message == "and 2,900 more problems"


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_manifest_error(data: bytes) -> None:
    problems(data)


@given(st.text(alphabet="abg:{}[]-\n \"'&*!%#|>?,~09.\t$", max_size=120))
def test_random_yaml_raises_nothing_but_manifest_error(text: str) -> None:
    problems(text)
    problems(fleet(text))


@settings(max_examples=200)
@given(st.data())
def test_careless_edits_raise_nothing_but_manifest_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 60)))
    new = data.draw(st.text(alphabet="ab:{}[]-\n \"'&*!#|,9.", max_size=8))
    problems(GOOD[:start] + new + GOOD[end:])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.data())
def test_any_value_at_any_place_raises_nothing_but_manifest_error(data: st.DataObject) -> None:
    values = copy.deepcopy(document())
    path = data.draw(st.sampled_from([place for place in [*maps(values), *leaves(values)] if place]))
    at(values, path[:-1])[path[-1]] = data.draw(json_values)
    problems(flow(values))
