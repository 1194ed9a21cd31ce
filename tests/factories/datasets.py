"""Dataset versions of box tasks."""

from collections.abc import Callable
from typing import Any

from pipeline.datasets import versions
from pipeline.datasets.filters import parse_filters
from pipeline.datasets.records import read_tasks
from pipeline.datasets.versions import Request, Version
from pipeline.service import Service

Post = Callable[..., None]


def box(uuid: str, label: str = "car", left: float = 1, **more: Any) -> dict[str, Any]:
    return {"uuid": uuid, "label": label, "left": left, "top": 2, "width": 3, "height": 4, **more}


def create(service: Service, name: str = "street", **filters: Any) -> Version:
    return versions.create(service, name, Request(filters=parse_filters(filters) if filters else None), "ana")


def members(service: Service, version: Version) -> list[str]:
    return [task.task_id for task in read_tasks(service.reader, version.id)]
