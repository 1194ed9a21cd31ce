"""Subscribers in the console: which events one receives is shown, and changed by those who may."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from playwright.sync_api import Browser, expect

from models import Subscriber
from pipeline.events import subscriptions
from pipeline.operations.queries.audit import list_audit_entries
from pipeline.service import Service
from tests.app.console.browsing import Console, window
from tests.app.console.conftest import Person
from tests.app.console.test_browser import AXE, OVERFLOW, VIOLATIONS
from tests.assertions import only

HOSTILE = "<b>Street</b>, night"


def subscribe(service: Service) -> UUID:
    """Register a receiver; its id."""
    settings = replace(service.settings, subscriber_hosts=("receiver.example",))
    with service.engine.begin() as connection:
        filters = {"project": [HOSTILE, "day"]}
        url, events = "https://receiver.example/hook", ["task", "follow-up.held"]
        row = subscriptions.add(connection, settings, "ana", url, events, filters=filters)
    return UUID(str(row["id"]))


def test_events_and_filters_are_shown_and_replaced(admin: Person, service: Service) -> None:
    address = f"/subscribers/{subscribe(service)}"
    for shown in (admin.get("/subscribers").text, admin.get(address).text):
        assert "task, follow-up.held" in shown
        assert "&lt;b&gt;Street&lt;/b&gt;, night, day" in shown
    form = {
        "group": ["task", "join"],
        "single": "response.received",
        "workflow": "chain\r\n\r\nother ",
        "project": HOSTILE,
    }
    assert admin.post(f"{address}/events", **form).status_code == 302
    stored = only(service, Subscriber)
    assert stored["events"] == ["task", "join", "response.received"]
    assert stored["filters"] == {"workflow": ["chain", "other"], "project": [HOSTILE]}
    with service.reader.begin() as connection:
        newest = list_audit_entries(connection, {}, limit=1).rows[0]
    assert (newest["action"], newest["details"]["events"]) == ("subscriber.select", stored["events"])


@pytest.mark.parametrize("form", [{}, {"single": "nonsense"}, {"group": "task", "step": "a\0b"}])
def test_what_selects_no_event_is_refused(admin: Person, service: Service, form: dict[str, str]) -> None:
    address = f"/subscribers/{subscribe(service)}/events"
    before = only(service, Subscriber)
    assert admin.post(address, **form).status_code == 400
    assert only(service, Subscriber) == before


def test_a_reader_may_not_select_events_and_an_unknown_subscriber_is_404(
    admin: Person, signed_in: Callable[..., Person], service: Service
) -> None:
    subscriber_id = subscribe(service)
    reader = signed_in("read")
    assert "Save" not in reader.get(f"/subscribers/{subscriber_id}").text
    assert reader.post(f"/subscribers/{subscriber_id}/events", group="task").status_code == 403
    unknown_id = UUID(int=subscriber_id.int ^ 1)
    assert admin.post(f"/subscribers/{unknown_id}/events", group="task").status_code == 404


def test_events_are_selected_in_a_browser(browser: Browser, console: Console) -> None:
    subscriber_id = subscribe(console.service)
    with window(browser, console, "operator", width=360) as opened:
        page = opened.open(f"subscribers/{subscriber_id}")
        page.evaluate(f"{AXE};0")
        assert page.evaluate(f"({VIOLATIONS})(null)") == []
        assert page.evaluate(OVERFLOW) <= 0
        page.get_by_label("join", exact=True).check()
        page.get_by_label("Only events of these projects").fill("night")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_contain_text("receives these events")
        expect(page.get_by_label("join", exact=True)).to_be_checked()
        expect(page.get_by_label("Single events")).to_have_value("follow-up.held")
        expect(page.get_by_label("Only events of these projects")).to_have_value("night")
