"""`weighbridge subscribers …`"""

import json
from collections.abc import Callable

from flask import Flask

from tests.app.commands.conftest import commands_of
from tests.fake_server import FakeServer, reply
from workers.runner import run_due_jobs


def test_a_subscriber_is_added_tested_and_removed(make_app: Callable[..., Flask]) -> None:
    with FakeServer(lambda asked: reply()) as receiver:
        app = make_app(SUBSCRIBER_HOSTS=f"127.0.0.1:{receiver.port}")
        weighbridge = commands_of(app)
        url = f"{receiver.url}/hook"
        added = json.loads(
            weighbridge(
                "subscribers", "add", url, "task", "workflow", "--header", "x-key: hush", "--json"
            ).stdout
        )
        assert added["secret"].startswith("whsec_")
        listed = weighbridge("subscribers", "list").stdout
        assert url in listed
        assert added["secret"] not in listed
        assert weighbridge("subscribers", "test", added["id"]).exit_code == 0
        run_due_jobs(app.extensions["weighbridge"])
        assert receiver.requests[0].headers["x-key"] == "hush"
        history = weighbridge("subscribers", "history", added["id"]).stdout
        assert "delivered" in history
        (row,) = json.loads(weighbridge("subscribers", "history", added["id"], "--json").stdout)
        assert weighbridge("subscribers", "replay", row["id"]).exit_code == 0
        run_due_jobs(app.extensions["weighbridge"])
        assert len(receiver.requests) == 2
        select = ("subscribers", "select", added["id"])
        assert weighbridge(*select, "join", "--step", "vote").exit_code == 0
        (row,) = json.loads(weighbridge("subscribers", "list", "--json").stdout)
        assert (row["events"], row["step"]) == (["join"], ["vote"])
        assert "no event is called joins" in weighbridge(*select, "joins").stderr
        assert weighbridge("subscribers", "disable", added["id"]).exit_code == 0
        assert weighbridge("subscribers", "test", added["id"]).exit_code == 1
        assert weighbridge("subscribers", "enable", added["id"]).exit_code == 0
        assert weighbridge("subscribers", "remove", added["id"]).exit_code == 0
        assert "No subscribers." in weighbridge("subscribers", "list").stdout


def test_a_host_that_is_not_named_is_refused_in_words(make_app: Callable[..., Flask]) -> None:
    refused = commands_of(make_app())("subscribers", "add", "https://example.com/hook", "task")
    assert refused.exit_code == 1
    assert "SUBSCRIBER_HOSTS" in refused.stderr
