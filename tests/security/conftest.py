"""The service of the pipeline's tests, for attacks that do not need processes."""

from tests.pipeline.conftest import (
    certificate,
    open_pipeline,
    open_service,
    sandbox,
    scale_process,
    service,
)

__all__ = ["certificate", "open_pipeline", "open_service", "sandbox", "scale_process", "service"]
