"""A server of images, and a pipeline that may fetch from it."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.application import create_app
from tests.factories.pictures import PUBLIC, Pictures
from tests.factories.pipelines import Pipeline


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    served = Pictures()
    with served.peer:
        yield served


@pytest.fixture
def chain(open_pipeline: Callable[..., Pipeline], pictures: Pictures) -> Pipeline:
    return open_pipeline(attachment_hosts=(pictures.host,), artifact_hosts=(), public_url=PUBLIC)


@pytest.fixture
def web(chain: Pipeline) -> Iterator[FlaskClient]:
    """A client that reads an address of the service."""
    app: Flask = create_app(chain.service.settings)
    yield app.test_client()
    app.extensions["weighbridge"].engine.dispose()
