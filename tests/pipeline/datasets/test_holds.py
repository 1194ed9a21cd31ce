"""A purge is recorded in the versions that lose members."""

from sqlalchemy import text

from pipeline.datasets import holds, versions
from pipeline.datasets.verify import verify
from pipeline.service import Service
from tests.factories.datasets import Post, box, create


def test_a_forced_purge_is_recorded_in_the_version(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")])
    create(service)
    with service.engine.begin() as connection:
        assert holds.versions_with(connection, ["t1", "unknown"]) == {"street@1": ["t1"]}
        holds.record_damage(connection, ["t1"])
        connection.execute(text("DELETE FROM responses WHERE task_id = 't1'"))
    with service.reader.begin() as connection:
        assert "t1" in (versions.find(connection, "street@1").damage or "")
    assert len(verify(service, "street")["problems"]) >= 2
