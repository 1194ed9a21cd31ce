"""Settings read from the environment, and the messages for invalid ones."""

import re

import pytest

from config import SettingsError, load_settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": "postgresql://somebody:sec/ret@db.example.com/name"},
        {"DATABASE_URL": "postgresql://somebody:sec#ret@db.example.com/name"},
        {"REDIS_URL": "rediss://:sec/ret@redis.example.com:6379"},
        {"REDIS_URL": "redis://somebody:sec?ret@redis.example.com:6379"},
    ],
)
def test_a_password_that_breaks_its_url_is_explained_and_not_shown(
    wrong: dict[str, str],
) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({"SECRET_KEY": "s", **wrong})
    assert str(raised.value).startswith(f"{next(iter(wrong))}: ")
    assert "%2F" in str(raised.value)
    assert "sec" not in str(raised.value).lower().replace("secret_key", "")


def test_addresses_as_platforms_give_them_are_taken() -> None:
    settings = load_settings(
        {
            "SECRET_KEY": "s",
            "DATABASE_URL": "postgres://u:p%2Fw@ec2.example.com:5432/d?sslmode=require",
            "REDIS_URL": "rediss://:p@ec2.example.com:6380",
        }
    )
    assert settings.database_url == "postgresql+psycopg://u:p%2Fw@ec2.example.com:5432/d?sslmode=require"
    for address in ("unix:///run/redis.sock", "redis+socket:///run/redis.sock", "redis://[::1]:6379/1"):
        assert load_settings({"SECRET_KEY": "s", "REDIS_URL": address}).redis_url == address
    for address in ("postgresql:///name?host=/run/postgresql", "sqlite:///var/x.db"):
        assert load_settings({"SECRET_KEY": "s", "DATABASE_URL": address}).database_url.endswith(address[-6:])


@pytest.mark.parametrize("name", ["ARTIFACT_HOSTS", "ATTACHMENT_HOSTS", "SUBSCRIBER_HOSTS"])
@pytest.mark.parametrize(
    "wrong", ["https://example.com", "example.com/a/../b", "example.com/a?b", "me@example.com", "a b", "::1"]
)
def test_a_host_that_no_address_could_match_is_refused(name: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: .*is not a host"):
        load_settings({name: f"example.com, {wrong}", "SECRET_KEY": "s"})


def test_hosts_are_names_or_addresses_with_or_without_a_port() -> None:
    named = ("example.com", "127.0.0.1:9000", "[::1]:9000", "s3.example.com/bucket", "[::1]:9000/a/b.c/")
    assert load_settings({"ARTIFACT_HOSTS": ",".join(named), "SECRET_KEY": "s"}).artifact_hosts == named


def test_a_prefix_with_other_characters_is_refused() -> None:
    with pytest.raises(SettingsError, match="UNIQUE_ID_PREFIX: Use at most 40 of the characters"):
        load_settings({"UNIQUE_ID_PREFIX": "a b/c", "SECRET_KEY": "s"})


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"SCALE_API_KEY": "test_abc"}, "SCALE_API_KEY is a test key"),
        ({"SCALE_TEST_API_KEY": "live_abc"}, "SCALE_TEST_API_KEY is a live key"),
        ({"SCALE_API_KEY": "abc", "SCALE_TEST_API_KEY": "abc"}, "are the same key"),
    ],
)
def test_an_api_key_of_the_other_environment_is_refused_without_being_shown(
    keys: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        load_settings(keys)
    assert "abc" not in str(caught.value)


def test_api_keys_without_a_prefix_and_of_the_right_environment_are_accepted() -> None:
    for live, test in (("live_abc", "test_abc"), ("abc", "def")):
        settings = load_settings({"SCALE_API_KEY": live, "SCALE_TEST_API_KEY": test})
        assert (settings.scale_api_key, settings.scale_test_api_key) == (live, test)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.com/callbacks/scale", "Must not end in /callbacks/scale"),
        ("https://example.com/a/callbacks/scale/", "Must not end in /callbacks/scale"),
        ("https://example.com/?a=CANARY", "query or fragment"),
        ("https://example.com/#CANARY", "query or fragment"),
        ("https://user:CANARY@example.com", "user name or password"),
        ("https://CANARY@example.com", "user name or password"),
        ("ftp://example.com", "starts with http:// or https://"),
    ],
)
def test_a_public_url_that_scale_cannot_call_is_refused(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings({"PUBLIC_URL": url, "SECRET_KEY": "s"})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("written", ["key", " key ", "'key'", '"key"', ' "key" ', "' key '"])
def test_quotes_and_blanks_around_a_key_are_ignored(written: str) -> None:
    settings = load_settings(
        {
            "SECRET_KEY": "s",
            "SCALE_LIVE_CALLBACK_KEYS": f"{written},other",
            "SCALE_API_KEY": written,
            "API_TOKEN": written,
        }
    )
    assert settings.scale_live_callback_keys == (b"key", b"other")
    assert (settings.scale_api_key, settings.api_token) == ("key", "key")


SECRETS = {
    "SCALE_API_KEY": "{0} {0}",
    "SCALE_TEST_API_KEY": "{0}\n{0}",
    "SCALE_LIVE_CALLBACK_KEYS": "{0} ä{0}",
    "SCALE_TEST_CALLBACK_KEYS": "good,{0} {0}",
    "API_TOKEN": "{0}\t{0}",
    "METRICS_TOKEN": "ü{0}",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings({name: SECRETS[name].format("CANARY"), "SECRET_KEY": "s"})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "SCALE_API_URL"])
@pytest.mark.parametrize(
    "password", ["CA@NARY", "CA/NARY", "1/CANARY", "CA#NARY", "CA?NARY", "CA@NARY@", "1?CANARY"]
)
def test_a_password_that_splits_an_address_is_never_shown(name: str, password: str) -> None:
    scheme = {"DATABASE_URL": "postgresql", "REDIS_URL": "redis", "SCALE_API_URL": "https"}[name]
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings({name: f"{scheme}://user:{password}@host.example/0", "SECRET_KEY": "s"})
    assert not {"NARY", "CA"} & set(str(caught.value).replace("@", " ").split())
    assert "NARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        *(
            ("PUBLIC_URL", f"https://host{end}", "PUBLIC_URL: Must not end in /callbacks/scale")
            for end in ("/callbacks/scale", "/CALLBACKS/Scale/", "/callbacks//scale", "/x/callbacks/scale%2F")
        ),
        ("PUBLIC_URL", "https://host?", "query or fragment"),
        ("PUBLIC_URL", "https://host#", "query or fragment"),
        ("PUBLIC_URL", "https://host/a b", "plain ASCII"),
        ("PUBLIC_URL", "https://exämple.com", "plain ASCII"),
        ("PUBLIC_URL", "https://host\\path", "plain ASCII"),
        ("PUBLIC_URL", "https://.", "plain ASCII"),
        ("PUBLIC_URL", "https://host:0", "port 0"),
        ("DATABASE_URL", "postgresql://a:%zz@host/name", "libpq can read"),
        ("DATABASE_URL", "postgresql://a@host/name?sslmod=require", "the parameter sslmod"),
        ("DATABASE_URL", "postgresql://a@one:5432,two:many/name", "Cannot be split"),
        ("ARTIFACT_STORE", "s3:/bucket", "s3://BUCKET"),
        ("ARTIFACT_STORE", "gs:bucket", "s3://BUCKET"),
        ("REDIS_URL", "redis://host/name", "number of a database"),
        ("SCALE_API_KEY", "TEST_x", "is a test key"),
        ("SCALE_API_KEY", "x|test", "is a test key"),
        ("SCALE_TEST_API_KEY", "LIVE_x", "is a live key"),
        ("SCALE_LIVE_CALLBACK_KEYS", "'one", "quotation mark"),
        ("SCALE_TEST_CALLBACK_KEYS", 'one,two"', "quotation mark"),
    ],
)
def test_a_value_that_cannot_work_is_refused(setting: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        load_settings({setting: value, "SECRET_KEY": "s"})


@pytest.mark.parametrize("value", ["'one','two'", '"one", "two"', "'one,two'", " one , two ", '"one","two"'])
def test_quotation_marks_around_each_key_or_the_whole_list_are_removed(value: str) -> None:
    settings = load_settings({"SCALE_LIVE_CALLBACK_KEYS": value, "SECRET_KEY": "s"})
    assert settings.scale_live_callback_keys == (b"one", b"two")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a@one:5432,two:5433/name?target_session_attrs=read-write",
        "postgresql://a:b%40c@one,two/name",
        "postgres:///name?host=/tmp",
    ],
)
def test_every_form_of_a_libpq_url_is_accepted(url: str) -> None:
    assert load_settings({"DATABASE_URL": url, "SECRET_KEY": "s"}).database_url.startswith(
        "postgresql+psycopg://"
    )
