"""The naive version: tables, schemas, endpoint and worker in one file.

It does the same job where nothing goes wrong: the body is kept, the task with its documented fields, the response and each
annotation are rows, and the worker decides what follows.
"""

import hmac
import os
from datetime import UTC, datetime

import requests
from celery import Celery
from flask import Flask, request
from marshmallow import INCLUDE, Schema, fields
from sqlalchemy import JSON, ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://"))
celery = Celery("naive", broker=os.environ["REDIS_URL"])
celery.conf.task_ignore_result = True
app = Flask("naive")


class Base(DeclarativeBase):
    pass


class Delivery(Base):
    __tablename__ = "naive_deliveries"
    id: Mapped[int] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    task_id: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict] = mapped_column(JSON)


class Task(Base):
    __tablename__ = "naive_tasks"
    task_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    project: Mapped[str | None] = mapped_column(index=True)
    batch: Mapped[str | None]
    unique_id: Mapped[str | None]
    instruction: Mapped[str | None]
    urgency: Mapped[str | None]
    is_test: Mapped[bool | None]
    tags: Mapped[list | None] = mapped_column(JSON)
    params: Mapped[dict | None] = mapped_column(JSON)
    metadata_: Mapped[dict | None] = mapped_column("metadata", JSON)
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    responses: Mapped[list["Response"]] = relationship(order_by="Response.id")


class Response(Base):
    __tablename__ = "naive_responses"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("naive_tasks.task_id"), index=True)
    response: Mapped[dict] = mapped_column(JSON)
    annotations: Mapped[list["Annotation"]] = relationship(cascade="all, delete-orphan")


class Annotation(Base):
    __tablename__ = "naive_annotations"
    id: Mapped[int] = mapped_column(primary_key=True)
    response_id: Mapped[int] = mapped_column(ForeignKey("naive_responses.id"), index=True)
    uuid: Mapped[str | None]
    label: Mapped[str | None]
    attributes: Mapped[dict | None] = mapped_column(JSON)
    geometry: Mapped[dict] = mapped_column(JSON)


class VertexSchema(Schema):
    x = fields.Float(required=True)
    y = fields.Float(required=True)


class AnnotationSchema(Schema):
    class Meta:
        unknown = INCLUDE

    uuid = fields.String()
    label = fields.String()
    attributes = fields.Dict()
    left = fields.Float()
    top = fields.Float()
    width = fields.Float()
    height = fields.Float()
    vertices = fields.List(fields.Nested(VertexSchema))


class ResponseSchema(Schema):
    class Meta:
        unknown = INCLUDE

    annotations = fields.List(fields.Nested(AnnotationSchema))


class TaskSchema(Schema):
    class Meta:
        unknown = INCLUDE

    task_id = fields.String(required=True)
    type = fields.String(required=True)
    status = fields.String(required=True)
    project = fields.String()
    batch = fields.String()
    unique_id = fields.String()
    instruction = fields.String()
    urgency = fields.String()
    is_test = fields.Boolean()
    tags = fields.List(fields.String())
    params = fields.Dict()
    metadata = fields.Dict()
    created_at = fields.DateTime()
    updated_at = fields.DateTime()
    completed_at = fields.DateTime()


class CallbackSchema(Schema):
    class Meta:
        unknown = INCLUDE

    task_id = fields.String(required=True)
    task = fields.Nested(TaskSchema, required=True)
    response = fields.Nested(ResponseSchema)


callback_schema = CallbackSchema()
TASK_COLUMNS = [name for name in TaskSchema().fields if name != "task_id"]
GEOMETRY = ("left", "top", "width", "height", "vertices")


@app.post("/callbacks/scale")
def callback() -> tuple[dict, int]:
    key = request.headers.get("scale-callback-auth", "")
    if not hmac.compare_digest(key.encode(), os.environ["SCALE_LIVE_CALLBACK_KEYS"].encode()):
        return {"error": "unauthorized"}, 401
    body = request.get_json()
    data = callback_schema.load(body)
    known = {name: data["task"].get(name) for name in TASK_COLUMNS}
    with Session(engine) as session:
        session.add(Delivery(task_id=data["task_id"], body=body))
        task = session.get(Task, data["task_id"])
        if task is None:
            task = Task(task_id=data["task_id"])
            session.add(task)
        for name, value in known.items():
            setattr(task, "metadata_" if name == "metadata" else name, value)
        if data.get("response"):
            annotations = [
                Annotation(
                    uuid=annotation.get("uuid"),
                    label=annotation.get("label"),
                    attributes=annotation.get("attributes"),
                    geometry={name: annotation[name] for name in GEOMETRY if name in annotation},
                )
                for annotation in data["response"].get("annotations", [])
            ]
            task.responses.append(Response(response=data["response"], annotations=annotations))
        session.commit()
    follow_up.delay(data["task_id"])
    return {"status": "ok"}, 200


@celery.task(name="naive.follow_up")
def follow_up(task_id: str) -> None:
    with Session(engine) as session:
        task = session.scalars(select(Task).where(Task.task_id == task_id)).one()
        if task.type != "polygonannotation":
            return
        polygons = [
            {"label": annotation.label, **annotation.geometry}
            for annotation in task.responses[-1].annotations
            if annotation.geometry
        ]
        requests.post(
            f"{os.environ['SCALE_API_URL']}/task/annotation",
            auth=(os.environ["SCALE_API_KEY"], ""),
            json={
                "callback_url": os.environ["CALLBACK_URL"],
                "instruction": "Draw a box around each **car** and **pedestrian**",
                "attachment_type": "image",
                "attachment": task.params["attachment"],
                "objects_to_annotate": ["car", "pedestrian"],
                "with_labels": True,
                "layers": {"polygons": polygons},
            },
            timeout=30,
        ).raise_for_status()


def create_tables() -> None:
    Base.metadata.create_all(engine)
