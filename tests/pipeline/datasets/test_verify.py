"""A dataset version is verified against the bytes as received."""

from sqlalchemy import update

from models import Annotation, Delivery
from pipeline.datasets.verify import verify
from pipeline.service import Service
from tests.factories.datasets import Post, box, create


def test_verify_finds_what_was_changed(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")])
    create(service)
    assert verify(service, "street")["problems"] == []
    with service.engine.begin() as connection:
        connection.execute(update(Delivery).where(Delivery.task_id == "t1").values(body=b'{"task_id": "t1"}'))
        connection.execute(update(Annotation).where(Annotation.uuid == "b").values(label="bus"))
    problems = verify(service, "street")["problems"]
    assert [problem.split(":")[0] for problem in problems] == ["Task t1", "Task t2"]
