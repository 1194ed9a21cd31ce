"""The export of the audit log."""

import csv
import io

from pipeline.access.audit import log_action
from pipeline.service import Service
from tests.app.commands.conftest import Run


def test_the_audit_log_is_exported_as_csv_since_a_moment(weighbridge: Run, service: Service) -> None:
    with service.engine.begin() as connection:
        for number in range(3):
            log_action(connection, "ana", "token.create", f"=cmd({number})", {"scopes": ["read"]})
    rows = list(csv.DictReader(io.StringIO(weighbridge("audit", "--csv", "--since", "1h").stdout)))
    assert [row["subject"] for row in rows] == ["'=cmd(2)", "'=cmd(1)", "'=cmd(0)"]
    assert rows[0]["details"] == '{"scopes": ["read"]}'
    assert rows[0]["at"].endswith("Z")
    limited = weighbridge("audit", "--csv", "--limit", "2").stdout
    assert len(list(csv.DictReader(io.StringIO(limited)))) == 2
    future = weighbridge("audit", "--csv", "--since", "2099-01-01").stdout
    assert list(csv.DictReader(io.StringIO(future))) == []
