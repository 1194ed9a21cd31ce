"""The afternoon version: its tables, schemas, endpoint and worker in one file, as such things begin."""

import hmac
import os

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


class Task(Base):
    __tablename__ = "naive_tasks"
    task_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str | None]
    status: Mapped[str | None]
    instruction: Mapped[str | None]
    params: Mapped[dict | None] = mapped_column(JSON)
    metadata_: Mapped[dict | None] = mapped_column("metadata", JSON)
    response: Mapped[dict | None] = mapped_column(JSON)
    annotations: Mapped[list["Annotation"]] = relationship(cascade="all, delete-orphan")


class Annotation(Base):
    __tablename__ = "naive_annotations"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("naive_tasks.task_id"), index=True)
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
    instruction = fields.String()
    params = fields.Dict()
    metadata = fields.Dict()


class CallbackSchema(Schema):
    class Meta:
        unknown = INCLUDE

    task_id = fields.String(required=True)
    task = fields.Nested(TaskSchema, required=True)
    response = fields.Nested(ResponseSchema)


callback_schema = CallbackSchema()
GEOMETRY = ("left", "top", "width", "height", "vertices")


@app.post("/callbacks/scale")
def callback() -> tuple[dict, int]:
    key = request.headers.get("scale-callback-auth", "")
    if not hmac.compare_digest(key.encode(), os.environ["SCALE_LIVE_CALLBACK_KEYS"].encode()):
        return {"error": "unauthorized"}, 401
    data = callback_schema.load(request.get_json())
    task = data["task"]
    with Session(engine) as session:
        row = session.get(Task, data["task_id"]) or Task(task_id=data["task_id"])
        row.type, row.status = task["type"], task["status"]
        row.instruction, row.params = task.get("instruction"), task.get("params")
        row.metadata_, row.response = task.get("metadata"), data.get("response")
        row.annotations = [
            Annotation(
                uuid=annotation.get("uuid"),
                label=annotation.get("label"),
                attributes=annotation.get("attributes"),
                geometry={name: annotation[name] for name in GEOMETRY if name in annotation},
            )
            for annotation in data.get("response", {}).get("annotations", [])
        ]
        session.add(row)
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
            for annotation in task.annotations
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
