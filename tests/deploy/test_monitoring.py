"""Alert rules, their runbooks and the dashboard: all parse, and name only metrics that the service has."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.application import create_app
from config import load_settings
from tests.service import ROOT

ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
ALERT_TESTS = ROOT / "deploy/prometheus/alerts_test.yaml"
DASHBOARD = ROOT / "deploy/grafana/weighbridge.json"
RUNBOOKS = ROOT / "docs/runbooks"
METRIC = re.compile(r"\bweighbridge_\w+")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def run(promtool: Path, *words: str | Path) -> None:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_parse_and_each_fires_when_it_should_and_not_before(promtool: Path) -> None:
    run(promtool, "check", "rules", ALERTS)
    run(promtool, "test", "rules", ALERT_TESTS)
    tested = {
        case["alertname"]: any(
            other["exp_alerts"]
            for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
            for other in test["alert_rule_test"]
            if other["alertname"] == case["alertname"]
        )
        for test in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert tested == {rule["alert"]: True for rule in rules()}


def test_each_alert_has_a_runbook_and_the_index_names_it() -> None:
    index = (RUNBOOKS / "README.md").read_text()
    for rule in rules():
        page = ROOT / rule["annotations"]["runbook"]
        text = page.read_text()
        assert text.startswith(f"# {rule['alert']}\n")
        assert rule["annotations"]["summary"] in text
        assert "## Check" in text
        assert "## Fix" in text
        severity = rule["labels"]["severity"]
        assert f"| [{rule['alert']}]({page.name}) | {severity} |" in index
    assert len(list(RUNBOOKS.glob("*.md"))) == len(rules()) + 1


def test_the_queries_of_the_dashboard_parse(promtool: Path, tmp_path: Path) -> None:
    records = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    assert len(records) > 10
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    run(promtool, "check", "rules", file)


def test_alerts_and_dashboard_name_metrics_that_exist(sqlite_url: str, tmp_path: Path) -> None:
    settings = {
        "DATABASE_URL": sqlite_url,
        "SECRET_KEY": "secret",
        "ARTIFACT_STORE": str(tmp_path),
        "RECONCILE_EVERY_SECONDS": "3600",
    }
    web = create_app(load_settings(settings)).test_client()
    known: set[str] = set()
    for family in text_string_to_metric_families(web.get("/metrics").text):
        known |= {family.name}
        known |= {f"{family.name}{end}" for end in ("_total", "_bucket", "_count", "_sum", "_info")}
    used = {
        name for text in [*queries(), *(rule["expr"] for rule in rules())] for name in METRIC.findall(text)
    }
    assert len(used) > 10
    assert used <= known
    web.application.extensions["weighbridge"].engine.dispose()


def test_the_metrics_follow_the_conventions_of_prometheus(
    promtool: Path, sqlite_url: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": sqlite_url, "SECRET_KEY": "secret", "ARTIFACT_STORE": str(tmp_path)}
    web = create_app(load_settings(settings)).test_client()
    text = web.get("/metrics").data
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    web.application.extensions["weighbridge"].engine.dispose()
