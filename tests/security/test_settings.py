"""Settings that open the service to others."""

from collections.abc import Callable

from flask import Flask

from tests.app.commands.conftest import app, make_app, service, workflows_dir
from tests.app.commands.test_doctor import looked_at, scale, working
from tests.fake_server import FakeServer

__all__ = ["app", "make_app", "scale", "service", "workflows_dir", "working"]


def test_secrets_that_can_be_guessed_are_warned_about(
    make_app: Callable[..., Flask], working: dict[str, str], scale: FakeServer
) -> None:
    short = {
        "API_TOKEN": "a",
        "SCALE_LIVE_CALLBACK_KEYS": f"{'x' * 32},b",
        "SECRET_KEY": "x",
        "METRICS_TOKEN": "1",
    }
    _, found = looked_at(
        make_app(**{**working, "SCALE_API_URL": f"{scale.url}/v1", "PUBLIC_URL": scale.url, **short})
    )
    for name in short:
        assert found[name]["state"] == "warning", name
        assert "guessed" in found[name]["message"]


def test_metrics_that_everyone_can_read_are_warned_about_where_others_reach_them(
    make_app: Callable[..., Flask], working: dict[str, str], database_url: str
) -> None:
    _, found = looked_at(make_app(**{**working, "METRICS_TOKEN": ""}))
    assert ("METRICS_TOKEN" in found) == database_url.startswith("postgresql")
    assert "METRICS_TOKEN" not in looked_at(make_app(**working))[1]
