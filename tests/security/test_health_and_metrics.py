"""What anybody may ask for: floods of requests for `/readyz` and `/metrics`, and what they say to whom."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event

from tests.app.test_health import Make, make_app, ready

__all__ = ["make_app"]


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_a_flood_of_requests_reads_the_database_once(
    make_app: Make, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.application.READINESS_SECONDS", 3600.0)
    monkeypatch.setattr("app.application.METRICS_SECONDS", 3600.0)

    def statements(requests: int) -> int:
        """How many statements a new process sends for as many requests, eight at a time."""
        app, sent = make_app(), []
        engine = app.extensions["weighbridge"].engine
        event.listen(engine, "before_cursor_execute", lambda *_: sent.append(1))
        with ThreadPoolExecutor(8) as clients:
            answers = [*clients.map(lambda _: app.test_client().get(path).status_code, range(requests))]
        assert answers == [200] * requests
        engine.dispose()
        return len(sent)

    assert statements(40) == statements(1) > 0


def test_without_a_token_no_file_name_person_or_answer_of_scale_is_shown(
    make_app: Make, tmp_path: Path
) -> None:
    app = make_app(API_TOKEN="token", METRICS_TOKEN="for-prometheus")
    (tmp_path / "workflows/odd.yaml").write_text("workflow: odd\nsteps: 7\n")
    for token in ("", "wrong"):
        status, word, problems = ready(app, token)
        assert (status, word) == (200, "degraded")
        assert problems == ["workflows: problem; `weighbridge doctor` shows details"]
    assert "odd.yaml" in ready(app, "for-prometheus")[2][0]


def test_metrics_token_guards_metrics_if_it_is_set(make_app: Make) -> None:
    web = make_app(METRICS_TOKEN="for-prometheus").test_client()
    assert web.get("/metrics").status_code == 401
    assert web.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 401
    assert web.get("/metrics", headers={"Authorization": "Bearer for-prometheus"}).status_code == 200
