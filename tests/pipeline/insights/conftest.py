"""Completed box tasks, received as callbacks."""

from tests.pipeline.datasets.conftest import post  # noqa: F401
