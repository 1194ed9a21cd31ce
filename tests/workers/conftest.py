"""The worker rooms' tests use the services and pipelines of tests/pipeline."""

from tests.pipeline.conftest import (  # noqa: F401
    open_pipeline,
    open_service,
    pipeline,
    sandbox,
    scale_process,
    service,
)
