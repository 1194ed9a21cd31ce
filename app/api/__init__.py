"""The REST API, `/api/v1`: what is known of tasks, deliveries, jobs and follow-ups, and what a person may do about it."""

from __future__ import annotations

from flask import Flask
from flask_swagger_ui import get_swaggerui_blueprint

from app.api import (
    artifacts,
    audit,
    batches,
    deliveries,
    follow_ups,
    jobs,
    previews,
    responses,
    submit,
    subscribers,
    tasks,
    workflows,
)
from app.api.blueprint import Json
from app.api.problems import Api

RESOURCES = (
    tasks,
    submit,
    responses,
    deliveries,
    artifacts,
    jobs,
    follow_ups,
    workflows,
    previews,
    batches,
    subscribers,
    audit,
)

DESCRIPTION = """
Lists are `{"data": […], "next_cursor": null | "…"}`, newest first, and annotations by position; `?cursor=` takes the
`next_cursor` of the page before. Times are UTC. Errors are `application/problem+json`.
Words are Scale's own wherever it has one.
"""


def register(app: Flask) -> None:
    """Add the API, its OpenAPI document `/api/openapi.json`, and the page that shows it, `/api/docs`."""
    app.json = Json(app)
    app.config.update(
        API_TITLE="Weighbridge",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/api",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{"token": []}],
        },
    )
    api = Api(app)
    for resource in RESOURCES:
        api.register_blueprint(resource.blueprint)
    # Everything that the page needs comes from the package: nothing from a CDN, nothing checked by a stranger.
    page = {
        "app_name": "Weighbridge",
        "layout": "BaseLayout",
        "validatorUrl": None,
        "oauth2RedirectUrl": None,
    }
    app.register_blueprint(get_swaggerui_blueprint("/api/docs", "/api/openapi.json", config=page))
