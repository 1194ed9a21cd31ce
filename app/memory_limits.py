"""The memory budget of each request that only reads: see pipeline/db/memory_budget.py. Other requests act for operators."""

from __future__ import annotations

from contextlib import ExitStack

from flask import Flask, g, request

from pipeline.db.memory_budget import memory_budget

TOO_LARGE = (
    "What is stored here is too large for one answer. Ask for less, or download it: /responses/{number}/content of the task,"
    " /deliveries/{id}/body, /artifacts/{id}/content."
)
BUSY = "Another large request is being answered; send this one again."


def install(app: Flask) -> None:
    """Give every GET a memory budget until its answer is made. Answers that are streamed are bounded by themselves."""
    app.before_request(_begin)
    app.teardown_request(_end)


def _begin() -> None:
    if request.method in ("GET", "HEAD"):
        g.memory_budget = ExitStack()
        g.memory_budget.enter_context(memory_budget())


def _end(_error: BaseException | None) -> None:
    if (budget := g.pop("memory_budget", None)) is not None:
        budget.close()
