"""Settings read from the environment, and the messages for invalid ones."""

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
