"""From manifest text to a manifest: what is taken, how files merge, and what problems say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.manifest.field_types import duration_seconds, size_bytes
from fleet.core.manifest.models import Broker, Defaults
from fleet.core.manifest.parse import Parsed, from_document, parse
from fleet.core.manifest.tree import Source
from fleet.core.manifest.yaml_scalars import resolve
from fleet.errors import ManifestError
from tests.core.texts import ENVIRON, GOOD, document, fleet, problems, read, said

MANIFESTS = Path(__file__).parents[3] / "manifests"


def groups(parsed: Parsed) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = parsed.document["spec"]["groups"]
    return found


def warned(text: str) -> str:
    return "\n".join(str(warning) for warning in read(text).warnings)


# what is read


def test_a_manifest_becomes_values() -> None:
    manifest = read(GOOD).manifest
    assert manifest.name == "shop"
    assert isinstance(manifest.spec.broker, Broker)
    assert manifest.spec.broker.visibility_timeout == 3600.0
    assert manifest.spec.budgets.memory == 16 << 30
    reports = manifest.spec.groups["reports"]
    assert reports.pool is not None
    assert reports.pool.max_memory_per_child == 600 << 20
    assert reports.pool.max_age_per_child == 3600.0
    assert reports.task is not None
    assert (reports.task.time_limit, reports.task.soft_time_limit) == (600.0, 540.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("500ms", 0.5), ("1h30m", 5400.0), ("1.5m", 90.0), ("2d", 172_800.0), ("0s", 0.0)],
)
def test_durations_become_seconds(text: str, seconds: float) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512Mi", 512 << 20), ("2Gi", 2 << 30), ("1.5Ki", 1536), ("100", 100)])
def test_sizes_become_bytes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("name", ["quickstart", "dev", "prod"])
def test_manifests_of_the_project_hold_without_warnings(name: str) -> None:
    path = MANIFESTS / f"{name}.yaml"
    parsed = parse([Source(str(path), path.read_bytes())], environ={})
    assert parsed.warnings == ()
    assert parsed.manifest.spec.groups


def test_quickstart_is_ten_solo_one_prefork_and_a_command() -> None:
    path = MANIFESTS / "quickstart.yaml"
    manifest = parse([Source(str(path), path.read_bytes())], environ={}).manifest
    thumbs, reports, clock = (manifest.spec.groups[name] for name in ("thumbs", "reports", "clock"))
    assert (thumbs.replicas, reports.replicas, clock.replicas) == (10, 1, 1)
    assert thumbs.pool is not None
    assert reports.pool is not None
    assert (thumbs.pool.type, reports.pool.type, reports.pool.concurrency) == ("solo", "prefork", 10)
    assert clock.command is not None


# shorthands


def test_shorthands_are_maps() -> None:
    short = read(fleet("a: {pool: solo, replicas: 1, queues: [x, y]}\n    b: {replicas: 1, dependsOn: [a]}"))
    long = read(
        fleet("a: {pool: {type: solo}, replicas: 1, queues: {x: {}, y: {}}}\n    b: {replicas: 1, dependsOn: {a: {}}}")
    )
    assert short.manifest == long.manifest
    assert short.document == long.document


def test_a_word_for_the_pool_replaces_the_pool_it_overlays() -> None:
    base = fleet("a: {pool: {type: prefork, concurrency: 10, maxTasksPerChild: 5}, replicas: 1}")
    assert groups(read(base, "spec: {groups: {a: {pool: solo}}}"))["a"]["pool"] == {"type": "solo"}
    merged = groups(read(base, "spec: {groups: {a: {pool: {concurrency: 4}}}}"))["a"]["pool"]
    assert merged == {"type": "prefork", "concurrency": 4, "maxTasksPerChild": 5}


def test_a_list_of_queues_replaces_the_queues_it_overlays() -> None:
    base = fleet("a: {replicas: 1, queues: {x: {priority: 1}}}")
    assert groups(read(base, "spec: {groups: {a: {queues: [y]}}}"))["a"]["queues"] == {"y": {}}
    both = groups(read(base, "spec: {groups: {a: {queues: {y: {}}}}}"))["a"]["queues"]
    assert both == {"x": {"priority": 1}, "y": {}}


# overlays and defaults


def test_files_merge_left_to_right() -> None:
    parsed = read(
        fleet("a: {replicas: 1, env: {X: base, Y: base}}"),
        "spec: {groups: {a: {replicas: 2, env: {X: middle}}}}",
        "spec: {groups: {a: {env: {X: last}}, b: {replicas: 3}}}",
    )
    assert groups(parsed)["a"] == {"replicas": 2, "env": {"X": "last", "Y": "base"}}
    assert groups(parsed)["b"] == {"replicas": 3}


def test_null_removes_what_an_earlier_file_brought() -> None:
    parsed = read(
        fleet("a: {replicas: 1, env: {X: x, Y: y}}\n    b: {replicas: 1}", more="  concurrency: 9\n"),
        "spec: {groups: {a: {env: {X: null}}, b: null}, concurrency: null}",
    )
    assert groups(parsed) == {"a": {"replicas": 1, "env": {"Y": "y"}}}
    assert parsed.manifest.spec.concurrency is None


def test_an_overlay_changes_how_a_group_scales() -> None:
    base = fleet("a: {pool: solo, replicas: 1}", more="  concurrency: 9\n")
    assert "replicas and share exclude each other" in said(base, "spec: {groups: {a: {share: {min: 1}}}}")
    assert problems(base, "spec: {groups: {a: {share: {min: 1}, replicas: null}}}") == []


def test_defaults_lie_beneath_every_group() -> None:
    text = fleet(
        "a: {replicas: 1}\n    b: {replicas: 1, env: {X: own}}\n    c: {replicas: 1, env: {X: null}, drain: null}",
        more="  defaults: {env: {X: x, Y: y}, drain: {timeout: 5s}}\n",
    )
    assert groups(read(text)) == {
        "a": {"env": {"X": "x", "Y": "y"}, "drain": {"timeout": "5s"}, "replicas": 1},
        "b": {"env": {"X": "own", "Y": "y"}, "drain": {"timeout": "5s"}, "replicas": 1},
        "c": {"env": {"Y": "y"}, "replicas": 1},
    }
    assert read(text).manifest.spec.defaults == Defaults()


def test_a_null_in_an_overlay_removes_the_default_too() -> None:
    base = fleet("a: {replicas: 1, env: {X: base}}", more="  defaults: {env: {X: default}}\n")
    assert groups(read(base, "spec: {groups: {a: {env: {X: null}}}}"))["a"]["env"] == {}


def test_defaults_that_exclude_what_a_group_says_are_not_taken() -> None:
    text = fleet(
        "a: {}\n    b: {share: {min: 1}}\n    c: {command: [ls], replicas: 3}\n    d: {rollout: {strategy: recreate}}",
        more="  concurrency: 20\n  defaults: {replicas: 2, pool: solo, task: {prefetch: 1}, rollout: {maxSurge: 1}}\n",
    )
    found = groups(read(text))
    assert found["a"]["replicas"] == 2
    assert "replicas" not in found["b"]
    assert found["c"] == {"command": ["ls"], "replicas": 3, "rollout": {"maxSurge": 1}}
    assert found["d"]["rollout"] == {"strategy": "recreate"}


def test_a_named_thing_without_value_is_a_mistake_unless_it_removes_something() -> None:
    assert "'x' has no value" in said(fleet("a: {replicas: 1, queues: {x: }}"))
    assert "'b' has no value" in said(fleet("a: {replicas: 1}\n    b:"))
    assert problems(fleet("a: {replicas: 1, drain: }")) == []


def test_null_of_an_unknown_field_is_still_unknown() -> None:
    assert "unknown field 'replcas'" in said(fleet("a: {replicas: 1, replcas: null}"))


# the environment


def test_environment_is_put_into_values() -> None:
    text = fleet("a: {replicas: 1, env: {X: 'a-${env:A}-${env:B:-none}', Y: '${env:EMPTY:-filled}'}}")
    parsed = read(text, environ={"A": "1", "EMPTY": ""})
    assert groups(parsed)["a"]["env"] == {"X": "a-1-none", "Y": "filled"}


@pytest.mark.parametrize("text", ["'${env:N}'", "'${env:NONE:-3}'", '"${env:N}"'])
def test_a_number_may_come_from_the_environment(text: str) -> None:
    groups_text = f"a: {{replicas: {text}, pool: {{type: threads, concurrency: {text}}}, env: {{N: {text}}}}}"
    parsed = read(fleet(groups_text), environ={"N": "3"})
    group = parsed.manifest.spec.groups["a"]
    assert (group.replicas, group.pool and group.pool.concurrency, group.env) == (3, 3, {"N": "3"})
    assert parsed.document["spec"]["groups"]["a"]["replicas"] == 3


@pytest.mark.parametrize("value", ["", "three", "012", "1e", "3 ", "true", "0x3"])
def test_text_that_is_no_number_is_refused_where_a_number_is_meant(value: str) -> None:
    assert problems(fleet("a: {replicas: '${env:N}'}"), environ={"N": value})


def test_a_reference_inside_a_reference_is_refused() -> None:
    assert "a reference inside a reference" in said(fleet("a: {replicas: 1, env: {X: '${env:A:-${env:B:-z}}'}}"))


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("a: {replicas: ${env:N}}", 'inside braces a reference needs quotes: "${env:N}"'),
        ("a: {command: [serve, ${env:N}], replicas: 1}", "inside braces a reference needs quotes"),
        ("a:\n\t  replicas: 1", "the line is indented with a tab: write spaces"),
    ],
)
def test_what_the_yaml_parser_does_not_name_is_named(body: str, hint: str) -> None:
    assert hint in said(fleet(body))


def test_only_a_reference_may_stand_for_a_number() -> None:
    assert problems(fleet("a: {replicas: '3'}"))
    assert problems(fleet("a: {replicas: '1${env:N}'}"), environ={"N": "3"})
    assert problems(fleet("a: {replicas: '${env:N}'}"), environ={"N": "-1"})


@pytest.mark.parametrize("value", ["yes", "12", "{a: b}", "a: b # c", "- x", "${env:B}", '"', "\n", "%(x)s", "$HOME"])
def test_what_is_put_in_is_never_read_as_yaml_or_as_a_reference(value: str) -> None:
    parsed = read(fleet("a: {replicas: 1, env: {X: '${env:A}'}}"), environ={"A": value})
    assert groups(parsed)["a"]["env"] == {"X": value}


def test_keys_are_not_templates_and_other_dollars_are_text() -> None:
    parsed = read(fleet("a: {replicas: 1, env: {X: '$HOME ${HOME} $${env:A} %(x)s {env:A}'}}"))
    assert groups(parsed)["a"]["env"] == {"X": "$HOME ${HOME} ${env:A} %(x)s {env:A}"}
    assert "not a valid name of an environment variable" in said(fleet("a: {replicas: 1, env: {'${env:A}': x}}"))


def test_a_reference_that_an_overlay_replaces_need_not_be_set() -> None:
    base = fleet("a: {replicas: 1, env: {X: '${env:NOT_SET}'}}")
    assert problems(base, "spec: {groups: {a: {env: {X: set}}}}") == []


def test_a_variable_that_is_not_utf8_is_a_problem() -> None:
    text = fleet("a: {replicas: 1, env: {X: '${env:A}'}}")
    assert "is not UTF-8 text" in said(text, environ={"A": b"\xff".decode("utf-8", "surrogateescape")})


@pytest.mark.parametrize(
    "value", ["a;b", "%(x)s", '"', "line\nline", "$HOME", "Zürich 東京 🚀", "\t", " x ", "\x1b[0m", "#", "'"]
)
def test_hostile_values_arrive_byte_for_byte(value: str) -> None:
    parsed = read(fleet(f"a: {{replicas: 1, env: {{X: {json.dumps(value, ensure_ascii=False)}}}, queues: [q]}}"))
    group = parsed.manifest.spec.groups["a"]
    assert group.env == {"X": value}


# places


def test_a_problem_has_file_line_column_path_and_hint() -> None:
    text = GOOD.replace("      pool: solo\n", "      pool: gevnt\n")
    assert said(text) == (
        "1.yaml:19:7  spec.groups.thumbs.pool: unknown pool 'gevnt'\n"
        "  hint: did you mean 'gevent'? known: asyncio, custom, eventlet, gevent, prefork, solo, threads"
    )


def test_each_problem_is_placed_in_the_file_that_has_it() -> None:
    found = problems(fleet("a: {pool: gevnt, replicas: 1}"), "spec:\n  groups:\n    a:\n      replicas: ten\n")
    assert [(problem.source, problem.line, problem.path) for problem in found] == [
        ("1.yaml", 8, "spec.groups.a.pool"),
        ("2.yaml", 4, "spec.groups.a.replicas"),
    ]


def test_a_default_that_is_wrong_is_told_once() -> None:
    text = fleet("a: {replicas: 1}\n    b: {replicas: 1}", more="  defaults: {env: {X: 1, FLEET_X: a}}\n")
    found = problems(text)
    assert [problem.line for problem in found] == [7, 7]
    assert found[0].path == "spec.defaults.env.X"


def test_positions_are_kept_for_later_checks() -> None:
    positions = read(GOOD, "spec: {groups: {thumbs: {replicas: 12}}}").positions
    assert (positions.at("spec.groups.thumbs.replicas").source, positions.at("spec.groups.thumbs.pool").line) == (
        "2.yaml",
        19,
    )
    problem = positions.problem(("spec", "groups", "beat", "command", 2), "no such module", "correct it")
    assert str(problem).startswith("1.yaml:45:29  spec.groups.beat.command[2]: no such module")
    assert positions.at("spec.groups.beat.nothing.below").line == 44


def test_every_problem_is_told_and_in_order() -> None:
    text = """\
apiVersion: workerfleet.dev/v1alpha1
kind: fleet
metadata: {name: Shop}
spec:
  ap: shop:app
  broker: embedded
  groups:
    a:
      pool: {type: solo, concurrency: 10}
      replica: 10
      queue: [x]
      time_limit: 5s
    b:
      command: celery beat
      replicas: 012
      env: {PORT: 8080, PORT: "1"}
    c: {command: [ls], pool: solo, replicas: 1, dependsOn: [d]}
    d: {command: [ls], replicas: 1, dependsOn: [c, e]}
"""
    assert [(problem.line, problem.path, problem.message) for problem in problems(text)] == [
        (2, "kind", "unknown kind 'fleet'"),
        (3, "metadata.name", "'Shop' is not a valid name"),
        (5, "spec.ap", "unknown field 'ap'"),
        (9, "spec.groups.a.pool.concurrency", "solo has 1 slot, not 10"),
        (10, "spec.groups.a.replica", "unknown field 'replica'"),
        (11, "spec.groups.a.queue", "unknown field 'queue'"),
        (12, "spec.groups.a.time_limit", "unknown field 'time_limit'"),
        (14, "spec.groups.b.command", "expected a list, got the text 'celery beat'"),
        (15, "spec.groups.b.replicas", "some YAML tools read 012 as octal"),
        (16, "spec.groups.b.env.PORT", "expected text, got the number 8080"),
        (16, "spec.groups.b.env.PORT", "the key 'PORT' is here twice"),
        (17, "spec.groups.c.pool", "a command has no pool: it is a program of its own"),
        (17, "spec.groups.c.dependsOn.d", "groups wait for each other: c -> d -> c"),
        (18, "spec.groups.d.dependsOn.e", "there is no group 'e'"),
    ]


@pytest.mark.parametrize(
    ("groups_text", "hint"),
    [
        ("a: {replcas: 1}", "did you mean 'replicas'?"),
        ("a: {replicas: 1, concurrency: 4}", "it belongs under pool: pool.concurrency"),
        ("a: {replicas: 1, time_limit: 4s}", "it belongs under task: task.timeLimit"),
        ("a: {replicas: 1, maxMemoryPerChild: 1Gi}", "it belongs under pool: pool.maxMemoryPerChild"),
        ("a: {replicas: 1, pool: {type: solo, queues: [x]}}", "it belongs further out: spec.groups.a.queues"),
        ("a: {numprocs: 4}", "fleet says replicas"),
        ("a: {scale: 4}", "fleet says replicas, or autoscale"),
        ("a: {beat: true}", "beat is a group of its own"),
        ("a: {autostart: false}", "`paused: true` holds a group"),
        ("a: {env_file: .env}", "fleet says envFrom"),
        ("a: {replicas: '4'}", "write 4 without quotes"),
        ("a: {replicas: 1, task: {rateLimits: {t: 0/s}}}", "write it like 10/s, 100/m or 5/h"),
        ("a: {replicas: 1, task: {rateLimits: {'a b': 1/s}}}", "use no spaces, at most 200 characters"),
        ("a: {replicas: 1, worker: celery, task: {rateLimits: {t: 1/s}}}", "use fleet's own worker"),
        ("a: {replicas: 1, drain: {timeout: 60}}", 'write "60s" for seconds'),
        ("a: {replicas: 1, env: {PORT: 80}}", 'write "80" in quotes'),
        ("a: {replicas: 1, queues: mail}", "write [mail]"),
        ("a: {replicas: 1, command: celery beat}", "[celery, beat]"),
        ("a: {replicas: 1, paused: yes}", 'write true, or "yes" for text'),
        ("a: {replicas: 1, pool: {type: solo, concurrency: 4}}", "write `replicas: 4`"),
        ("a: {replicas: 1, dependsOn: [b]}\n    bb: {replicas: 1}", "did you mean 'bb'?"),
        ("a: {replicas: 1, secretEnv: {X: key}}", "spec: {secrets: {key: {file: /path}}}"),
        ("a: {pool: solo}", "add `replicas: 1`"),
    ],
)
def test_hints_tell_what_to_write(groups_text: str, hint: str) -> None:
    assert hint in said(fleet(groups_text))


def test_a_budget_that_does_not_add_up_is_told_with_its_sums() -> None:
    text = fleet(
        "a: {pool: solo, replicas: 10}\n"
        "    b: {pool: {type: prefork, concurrency: 10}, replicas: 2}\n"
        "    c: {pool: solo, share: {min: 3, unit: 2}}\n"
        "    d: {pool: solo, replicas: 100, paused: true}\n"
        "    e: {command: [x], capacity: {slots: 2}, replicas: 2}",
        more="  concurrency: 30\n",
    )
    assert said(text) == (
        "1.yaml:7:3  spec.concurrency: the groups need at least 38 slots and the budget is 30: 8 short "
        "(b 2 x 10 = 20, a 10 x 1 = 10, c min 4, e 2 x 2 = 4)\n"
        "  hint: raise spec.concurrency to 38, or lower replicas, pool.concurrency or min"
    )


def test_limits_that_outlast_redelivery_are_told_with_their_sum() -> None:
    text = GOOD.replace("timeLimit: 10m", "timeLimit: 1h")
    assert "timeLimit 1h and drain 1m are 1h1m, longer than the 1h after which the broker delivers" in said(text)
    assert problems(text.replace("acks: late", "acks: early")) == []


def test_a_cycle_is_named_whole() -> None:
    text = fleet(
        "a: {replicas: 1, dependsOn: [b]}\n    b: {replicas: 1, dependsOn: [c]}\n    c: {replicas: 1, dependsOn: [a]}"
    )
    assert "groups wait for each other: a -> b -> c -> a" in said(text)


def test_many_dependencies_without_a_circle_are_fine() -> None:
    layers = [[f"g{layer}-{number}" for number in range(8)] for layer in range(8)]
    lines = [f"{name}: {{replicas: 1}}" for name in layers[0]]
    for below, above in itertools.pairwise(layers):
        lines += [f"{name}: {{replicas: 1, dependsOn: [{', '.join(below)}]}}" for name in above]
    assert problems(fleet("\n    ".join(lines))) == []


@pytest.mark.parametrize(
    ("kind", "limits", "message"),
    [
        ("{type: threads, maxTasksPerChild: 5}", "", "threads cannot honour maxTasksPerChild"),
        ("threads", "softTimeLimit: 5s", ""),
        ("asyncio", "softTimeLimit: 5s, timeLimit: 9s", ""),
        ("solo", "softTimeLimit: 5s, timeLimit: 9s", ""),
        ("threads", "timeLimit: 5s", ""),
        ("custom", "softTimeLimit: 5s", ""),
    ],
)
def test_capabilities_come_from_the_table_of_the_pools(kind: str, limits: str, message: str) -> None:
    text = said(fleet(f"a: {{pool: {kind}, replicas: 1, task: {{{limits}}}}}"))
    assert message in text
    assert bool(message) == bool(text)


# warnings


def test_what_is_allowed_and_not_meant_is_a_warning() -> None:
    secret = fleet("a: {replicas: 1}", more="  secrets: {spare: {env: X}}\n")
    assert "spec.secrets.spare: nothing uses this secret" in warned(secret)
    password = fleet("a: {replicas: 1}").replace("embedded", "{url: 'redis://:hunter2@host/0'}")
    assert "the URL holds a password" in warned(password)
    assert "hunter2" not in warned(password)
    assert warned(fleet("a: {replicas: 1}").replace("embedded", "{url: 'amqp://guest:guest@host//'}")) == ""


def test_a_password_is_in_no_problem() -> None:
    text = fleet("a: {replicas: x}").replace("embedded", "{url: 'redis://:hunter2@host/0', bogus: 1}")
    assert problems(text)
    assert "hunter2" not in said(text)


# brokers


def test_a_broker_is_required_for_fleets_own_workers_only() -> None:
    without = fleet("a: {command: [ls], replicas: 1}\n    b: {worker: celery, replicas: 1}").replace(
        "  broker: embedded\n", ""
    )
    assert problems(without) == []
    assert "a broker is required, for c" in said(without + "    c: {replicas: 1}\n")


# documents


def test_document_is_plain_and_reads_back_to_the_same() -> None:
    parsed = read(GOOD, "spec: {groups: {webhooks: {env: {TZ: null, X: '$${env:A}'}}}}")
    again = from_document(json.loads(json.dumps(parsed.document)), name="revision 3")
    assert again.manifest == parsed.manifest
    assert again.document == parsed.document


def test_problems_of_a_kept_document_name_it() -> None:
    kept = read(GOOD).document
    kept["spec"]["groups"]["thumbs"]["pool"] = "gevnt"
    with pytest.raises(ManifestError, match=r"^revision 3  spec.groups.thumbs.pool: unknown pool"):
        from_document(kept, name="revision 3")


def test_no_manifest_at_all_is_a_problem() -> None:
    with pytest.raises(ManifestError, match="no manifest was given"):
        parse([], environ={})


def test_broken_files_are_all_told() -> None:
    assert [problem.source for problem in problems("a: [", GOOD, "{")] == ["1.yaml", "3.yaml"]


def test_without_libyaml_the_same_is_read_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = GOOD.replace("pool: solo", "pool: gevnt").replace('"20"', "012").replace("[mail]\n", "*mail\n", 1)
    with_libyaml = (read(GOOD).document, said(GOOD.replace("pool: solo", "pool: gevnt").replace('"20"', "012")))
    monkeypatch.setattr("fleet.core.manifest.yaml_reader._LOADER", yaml.SafeLoader)
    assert with_libyaml == (read(GOOD).document, said(GOOD.replace("pool: solo", "pool: gevnt").replace('"20"', "012")))
    assert "unknown or circular alias *mail" in said(wrong)
    assert "not valid YAML" in said(GOOD.replace("{TZ: UTC}", "{TZ: UTC"))


# scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("0", 0), ("-7", -7), ("10", 10),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("y", "y"), ("nope", "nope"), ("a:b", "a:b"), ("1a", "1a"),
        ("10s", "10s"), ("1.2.3", "1.2.3"), ("127.0.0.1:80", "127.0.0.1:80"), ("8080:80", "8080:80"), ("-", "-"),
        ("0.1.0", "0.1.0"), ("512Mi", "512Mi"), ("2024-13", "2024-13"), ("+", "+"), ("-x", "-x"), ("-1", -1),
    ],
)  # fmt: skip
def test_plain_words_that_everyone_reads_alike(text: str, value: object) -> None:
    found, trap, _ = resolve(text)
    assert (found, trap) == (value, "")
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["yes", "No", "ON", "off", "012", "00", "-07", "0o17", "0x1F", "0b11", "1_000", "12:30", "12:30:45", "190:20:30.15",
     "2024-01-01", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00", ".inf", "-.INF", ".NaN", "1e999", "9" * 16, "1_0.5"],
)  # fmt: skip
def test_plain_words_that_yaml_tools_read_differently_are_traps(text: str) -> None:
    _, trap, hint = resolve(text)
    assert trap
    assert hint


@given(st.from_regex(r"[-+.:_0-9a-fA-FxobeEyYnNTtZ~ ]{0,12}", fullmatch=True))
def test_a_plain_word_that_is_no_trap_means_what_yaml_1_1_takes_it_for(text: str) -> None:
    """PyYAML reads YAML 1.1: we refuse or agree, but for `1e3`, which is text there and a number everywhere else."""
    try:
        theirs = yaml.safe_load(f"[{json.dumps('x')}, {text}]")
    except (yaml.YAMLError, ValueError):
        return
    if len(theirs) != 2 or text != text.strip() or isinstance(theirs[1], dict | list):
        return
    ours, trap, _ = resolve(text)
    assert trap or ours == theirs[1] or (isinstance(ours, float) and ours == float(text))


# round trips


def is_text_everywhere(word: str) -> bool:
    """No YAML tool takes it for a boolean, a number or nothing: the trap has tests of its own."""
    value, trap, _ = resolve(word)
    return isinstance(value, str) and not trap


names = (
    st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True)
    .filter(lambda name: not name.startswith("fleet-"))
    .filter(is_text_everywhere)
)
variables = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
    .filter(lambda name: not name.startswith("FLEET_"))
    .filter(is_text_everywhere),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"], exclude_characters="\u2028\u2029\ufeff"), max_size=20)
    .filter(
        lambda text: (
            "{env:" not in text and not set(text) & set(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
        )
    )
    .filter(is_text_everywhere),  # PyYAML writes 08 without quotes
    max_size=3,
)
some_groups = st.dictionaries(
    names,
    st.fixed_dictionaries(
        {"replicas": st.integers(0, 50), "pool": st.sampled_from(["solo", {"type": "prefork", "concurrency": 4}])},
        optional={"env": variables, "queues": st.lists(names, max_size=3, unique=True), "paused": st.booleans()},
    ),
    min_size=1,
    max_size=4,
)


@given(some_groups, st.booleans(), st.sampled_from([None, "'", '"']))
def test_what_is_written_is_what_is_read(wanted: dict[str, object], flow: bool, quotes: str | None) -> None:
    values = document() | {"spec": {"app": "shop:app", "broker": "embedded", "groups": wanted}}
    text = yaml.safe_dump(values, default_flow_style=flow, default_style=None, allow_unicode=True, width=1000)
    parsed = read(text)
    for name, group in wanted.items():
        assert isinstance(group, dict)
        read_back = parsed.manifest.spec.groups[name]
        assert (read_back.replicas, read_back.env, read_back.paused) == (
            group["replicas"],
            group.get("env"),
            group.get("paused"),
        )
        assert list(read_back.queues or {}) == group.get("queues", [])
    assert from_document(parsed.document, name="again").manifest == parsed.manifest


def test_order_of_files_matters_and_order_of_keys_does_not() -> None:
    values = document()
    values["spec"] = dict(reversed(values["spec"].items()))
    assert read(yaml.safe_dump(values, sort_keys=False)).manifest == read(GOOD).manifest
    assert read(GOOD, environ=ENVIRON).manifest.spec.release.revision == "9f31c2ab"
