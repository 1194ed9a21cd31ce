"""JSON values in pieces, whatever their size."""

from typing import Any

import pytest
from sqlalchemy import select, update

from models import Task
from pipeline.db import streams
from pipeline.db.json import loads
from pipeline.db.streams import CHUNK_BYTES, ValueGone, coalesced, stream_json
from pipeline.operations.queries.tasks import stream_params
from pipeline.service import Service
from tests.factories.callbacks import boxes, callback, receive_callback


def params(service: Service) -> Any:
    return stream_json(service.reader, Task.params, Task.type == "imageannotation")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_pieces_of_any_size_give_the_value_that_was_stored(
    service: Service, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    stored = {"a": 'é\U0001f600 \\ " \n', "b": [{}, None, 1.5]}
    receive_callback(service, callback(boxes("car"), params=stored))
    monkeypatch.setattr(streams, "PIECE_BYTES", size)
    pieces = list(params(service))
    assert max(map(len, pieces)) <= size
    assert loads(b"".join(pieces)) == stored


def test_a_column_without_a_value_is_null(service: Service) -> None:
    receive_callback(service, callback(boxes("car"), params=None))
    assert list(params(service)) == [b"null"]


def test_a_value_that_is_deleted_meanwhile_is_an_error(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_callback(service, callback(boxes("car"), params={"a": "b"}))
    monkeypatch.setattr(streams, "PIECE_BYTES", 2)
    pieces = params(service)
    next(pieces)
    with service.engine.begin() as connection:
        connection.execute(update(Task).values(params=None))
    with pytest.raises(ValueGone):
        list(pieces)


def test_params_that_a_callback_changes_meanwhile_are_not_mixed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive_callback(service, callback(boxes("car"), params={"a": "b"}))
    with service.reader.begin() as connection:
        task_id = connection.scalar(select(Task.task_id))
    assert task_id is not None
    monkeypatch.setattr(streams, "PIECE_BYTES", 2)
    pieces = stream_params(service.reader, task_id)
    next(pieces)
    changed = callback(boxes("car"), params={"c": "d", "e": "f"}, updated_at="2031-01-01T00:00:00.000Z")
    receive_callback(service, changed)
    with pytest.raises(ValueGone):
        list(pieces)


def test_small_pieces_are_sent_together_and_large_ones_as_they_are() -> None:
    large = b"x" * (CHUNK_BYTES + 1)
    assert list(coalesced([b"a", b"b", large, b"c", b"", b"d"])) == [b"ab", large, b"cd"]
    assert list(coalesced([])) == []
