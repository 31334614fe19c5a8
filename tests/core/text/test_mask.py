"""No password is shown, however carelessly its URL is written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.core.text.mask import holds_secret, masked, masked_text, without_url

CORE = "S3cR3tC0re"
NOISE = st.text(alphabet=st.sampled_from("aZ0@:/#?;&=%!$ \t\n'\"[]{}\\é_.-"), max_size=8)
PASSWORDS = st.builds(lambda before, after: f"{before}{CORE}{after}", NOISE, NOISE).filter(lambda it: "://" not in it)
SCHEMES = st.sampled_from(["redis://", "amqp://", "rediss://", "sqla+postgresql://", "sentinel://", "REDIS://", ""])
USERS = st.sampled_from(["", "me", "me%40home", "a.b-c"])
HOSTS = st.sampled_from(["h", "h:6379", "[::1]:6379", "h.example.org"])
PATHS = st.sampled_from(["", "/", "/0", "//", "/vhost", "/0?virtual_host=1", "/#x", "/0?mail=a@b"])


@given(SCHEMES, USERS, PASSWORDS, HOSTS, PATHS)
@example("redis://", "", f"a@{CORE}", "h", "/0")
@example("", "me", f"{CORE}/x#", "h", "//")
@example("redis://", "me", f";{CORE}", "h", "/0")
@example("", "me", f"//{CORE}", "h", "")
def test_a_password_is_not_shown(scheme: str, user: str, password: str, host: str, path: str) -> None:
    url = f"{scheme}{user}:{password}@{host}{path}"
    assert CORE not in masked(url)
    assert CORE not in without_url(f"cannot connect to {url}: refused ({password!r}, {password})", url)


@given(SCHEMES, PASSWORDS, HOSTS)
def test_a_password_in_a_list_is_not_shown(scheme: str, password: str, host: str) -> None:
    urls = f"amqp://u:x{password}@{host}//;{scheme or 'amqp://'}v:{password}@i//"
    assert CORE not in masked(urls)


NAMES = (
    "password",
    "authToken",
    "PASSWORD",
    "ssl_keyfile_password",
    "api_key",
    "access-key",
    "client_secret",
    "pass%77ord",
)


@given(SCHEMES, HOSTS, st.sampled_from(NAMES), PASSWORDS.filter(lambda it: "&" not in it))
def test_a_secret_parameter_is_not_shown(scheme: str, host: str, name: str, value: str) -> None:
    assert CORE not in masked(f"{scheme}{host}/0?a=b&{name}={value}&c=d")


@given(SCHEMES, USERS, st.from_regex(r"[A-Za-z0-9_@#?/-]{4,20}", fullmatch=True), HOSTS)
def test_a_password_is_not_shown_in_prose(scheme: str, user: str, noise: str, host: str) -> None:
    url = f"{scheme or 'amqp://'}{user}:{noise}{CORE}@{host}/0"
    for text in (f"refused: {url} (111)", f"{{'url': '{url}'}}", f'x "{url}" y', f"{url}\n{url}"):
        assert CORE not in masked_text(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:**@h:1/0"),
        ("amqp://u:p@ss@h//", "amqp://u:**@h//"),
        ("amqp://u:p@h//;amqp://u:q@i//", "amqp://u:**@h//;amqp://u:**@i//"),
        ("redis+socket:///s?virtual_host=0&password=pw", "redis+socket:///s?virtual_host=0&password=**"),
        ("redis://h/0?ssl_keyfile_password=x&a=b", "redis://h/0?ssl_keyfile_password=**&a=b"),
        ("memory://", "memory://"),
        ("redis://user@h", "redis://user@h"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("me:pw@h/vhost", "me:**@h/vhost"),
        ("h:5672", "h:5672"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_prose_without_secrets_stays() -> None:
    text = "redis://h:6379/0 refused: mail ops@example.org, see https://example.org/a?b=c"
    assert masked_text(text) == text


@pytest.mark.parametrize("name", ["DB_PASSWORD", "password", "API_TOKEN", "AWS_SECRET_ACCESS_KEY", "APIKEY", "DB_PASS"])
def test_a_variable_that_looks_like_a_secret(name: str) -> None:
    assert holds_secret(name, "x")
    assert not holds_secret(name, "")


@pytest.mark.parametrize("name", ["MAX_TOKENS", "TOKENIZERS_PARALLELISM", "PASSWORD_FILE", "KEY", "AUTHOR", "COMPASS"])
def test_a_variable_that_does_not(name: str) -> None:
    assert not holds_secret(name, "x")
    assert holds_secret(name, "postgres://me:pw@h/db")
