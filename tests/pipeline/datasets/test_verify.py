"""A dataset version is verified against the bytes as received."""

from sqlalchemy import select, update

from models import Annotation, Delivery, DeliveryBody
from pipeline.datasets.verify import verify
from pipeline.service import Service
from tests.factories.datasets import Post, box, create


def test_verify_finds_what_was_changed(service: Service, post: Post) -> None:
    post("t1", [box("a")])
    post("t2", [box("b")])
    create(service)
    assert verify(service, "street")["problems"] == []
    with service.engine.begin() as connection:
        of_first = select(Delivery.id).where(Delivery.task_id == "t1").scalar_subquery()
        changed = update(DeliveryBody).where(DeliveryBody.delivery_id == of_first)
        connection.execute(changed.values(body=b'{"task_id": "t1"}'))
        connection.execute(update(Annotation).where(Annotation.uuid == "b").values(label="bus"))
    problems = verify(service, "street")["problems"]
    assert [problem.split(":")[0] for problem in problems] == ["Task t1", "Task t2"]
