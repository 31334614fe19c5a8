"""Secrets from files, the environment and commands; fingerprints and their key."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.core.manifest.models import Secret
from fleet.inputs import secrets
from fleet.inputs.secrets import SecretError
from tests.accounts import as_nobody, give, needs_second_account, open_to_all
from tests.conftest import eventually
from tests.limits import struck_inside


def written(folder: Path, text: bytes, *, mode: int = 0o600, name: str = "value") -> Path:
    path = folder / name
    path.write_bytes(text)
    path.chmod(mode)
    return path


def value_of(secret: Secret, folder: Path, **environ: str) -> str:
    return secrets.resolve({"s": secret}, folder=folder, environ={**os.environ, **environ})["s"]


def refusal_of(secret: Secret, folder: Path, **environ: str) -> SecretError:
    with pytest.raises(SecretError) as caught:
        value_of(secret, folder, **environ)
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"a\nb\n\n", "a\nb\n"),
        (b' \xc3\xa4;%(x)s"$', ' ä;%(x)s"$'),
    ],
)
def test_file_gives_its_text_without_the_last_line_ending(tmp_path: Path, text: bytes, value: str) -> None:
    assert value_of(Secret(file=str(written(tmp_path, text))), tmp_path) == value


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_file_that_others_cannot_read_is_taken(tmp_path: Path, mode: int) -> None:
    written(tmp_path, b"v", mode=mode)
    assert value_of(Secret(file="value"), tmp_path) == "v"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o640, 0o620, 0o660, 0o666])
def test_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, b"v", mode=mode)
    error = refusal_of(Secret(file="value"), tmp_path)
    assert f"mode {mode:04o}" in error.message
    assert error.hint == f"chmod 0600 {path}"


@needs_second_account
def test_file_of_another_account_is_refused(tmp_path: Path) -> None:
    give(written(tmp_path, b"v"))
    assert "belongs to nobody" in refusal_of(Secret(file="value"), tmp_path).message


@needs_second_account
def test_file_of_root_is_taken_by_another_account(tmp_path: Path) -> None:
    """One that only root can change, in a group's or a service manager's hands, as far as it can be read at all."""
    path = written(open_to_all(tmp_path), b"v")
    facts = path.stat()
    as_nobody(lambda: secrets._refuse_open_file(path, facts))


def test_link_to_a_private_file_is_followed(tmp_path: Path) -> None:
    written(tmp_path, b"v")
    (tmp_path / "link").symlink_to("value")
    assert value_of(Secret(file="link"), tmp_path) == "v"


def test_missing_file_folder_and_pipe_are_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "cannot read" in refusal_of(Secret(file="nowhere"), tmp_path).message
    assert "not a regular file" in refusal_of(Secret(file="."), tmp_path).message
    assert "not a regular file" in refusal_of(Secret(file="pipe"), tmp_path).message


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"", "empty"), (b"\n", "empty"), (b"a\x00b", "NUL"), (b"\xff\xfe", "UTF-8"), (b"x" * 200_000, "longer")],
)
def test_value_that_no_variable_can_hold_is_refused(tmp_path: Path, text: bytes, words: str) -> None:
    assert words in refusal_of(Secret(file=str(written(tmp_path, text))), tmp_path).message


def test_environment_gives_its_value_as_it_is(tmp_path: Path) -> None:
    assert value_of(Secret(env="FROM_HERE"), tmp_path, FROM_HERE="a\n") == "a\n"
    assert "NOT_HERE is not set" in refusal_of(Secret(env="NOT_HERE"), tmp_path).message


def test_command_gives_what_it_prints_and_runs_in_the_folder(tmp_path: Path) -> None:
    written(tmp_path, b"from file\n")
    assert value_of(Secret(exec=["cat", "value"]), tmp_path) == "from file"


def test_failing_command_is_told_without_its_words(tmp_path: Path) -> None:
    code = "import sys; print('half a secret'); print('line 1\\nkey hunter2 is no key', file=sys.stderr); sys.exit(3)"
    error = refusal_of(Secret(exec=[sys.executable, "-c", code]), tmp_path)
    assert "failed: exit 3" in error.message
    assert error.hint == "it wrote 2 lines of errors: run it by hand to read them"
    assert "half a secret" not in f"{error.message}{error.hint}"
    assert "hunter2" not in f"{error.message}{error.hint}"


def test_unknown_command_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    assert "cannot run 'no-such-program-here'" in refusal_of(Secret(exec=["no-such-program-here"]), tmp_path).message


def test_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > child; wait"

    def child_of_the_command(seconds: float) -> int | None:
        with pytest.raises(SecretError, match="no answer in time"):
            secrets.resolve(
                {"s": Secret(exec=["sh", "-c", script])}, folder=tmp_path, environ=os.environ, timeout_seconds=seconds
            )
        path = tmp_path / "child"
        return int(path.read_text()) if path.exists() and path.read_text() else None

    child = struck_inside(child_of_the_command)
    eventually(lambda: not running(child))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_all_failures_are_told_at_once_and_good_ones_are_not_shown(tmp_path: Path) -> None:
    declared = {"a": Secret(env="GOOD"), "b": Secret(env="MISSING"), "c": Secret(file="nowhere")}
    with pytest.raises(SecretError) as caught:
        secrets.resolve(declared, folder=tmp_path, environ={"GOOD": "hunter2"})
    assert "secret b:" in caught.value.message
    assert "secret c:" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_only_the_asked_secrets_are_read(tmp_path: Path) -> None:
    declared = {"a": Secret(env="GOOD"), "b": Secret(env="MISSING")}
    assert secrets.resolve(declared, folder=tmp_path, environ={"GOOD": "v"}, only={"a"}) == {"a": "v"}


def test_fingerprint_follows_the_value_and_the_key() -> None:
    mark = secrets.fingerprint("hunter2", key=b"k" * 32)
    assert mark == secrets.fingerprint("hunter2", key=b"k" * 32)
    assert (
        len({mark, secrets.fingerprint("hunter3", key=b"k" * 32), secrets.fingerprint("hunter2", key=b"j" * 32)}) == 3
    )
    assert secrets.fingerprints({"a": "hunter2"}, key=b"k" * 32) == {"a": mark}


def test_reading_a_key_that_is_not_kept_yet_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    assert secrets.fleet_key(path) == secrets.fleet_key(path)
    assert list(tmp_path.iterdir()) == []


def test_key_is_kept_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key"
    key = secrets.fleet_key(path)
    secrets.keep_key(path)
    secrets.keep_key(path)
    assert path.read_bytes() == secrets.fleet_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_commands_that_meet_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    program = "import sys; from pathlib import Path; from fleet.inputs import secrets; path = Path(sys.argv[1]); "
    program += "sys.stdin.read(); secrets.keep_key(path); print(secrets.fleet_key(path).hex())"
    several = [
        subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    keys = {process.communicate()[0].decode().strip() for process in several}
    assert keys == {path.read_bytes().hex()}


def test_damaged_key_is_not_used(tmp_path: Path) -> None:
    written(tmp_path, b"short", name="key")
    with pytest.raises(SecretError, match="damaged"):
        secrets.fleet_key(tmp_path / "key")
