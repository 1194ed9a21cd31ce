"""The registry of the resources of the REST API, with its OpenAPI document and the page that shows it."""

from __future__ import annotations

from flask import Flask
from flask_swagger_ui import get_swaggerui_blueprint

from app.api import (
    artifacts,
    audit,
    backfills,
    batches,
    bulk_actions,
    datasets,
    deliveries,
    exports,
    follow_ups,
    insights,
    jobs,
    joins,
    previews,
    purge,
    responses,
    runs,
    spend,
    submit,
    subscribers,
    tasks,
    workflows,
)
from app.api.blueprint import OrjsonProvider
from app.api.problems import Api

RESOURCES = (
    tasks,
    submit,
    responses,
    deliveries,
    artifacts,
    jobs,
    follow_ups,
    runs,
    joins,
    workflows,
    previews,
    spend,
    backfills,
    bulk_actions,
    insights,
    batches,
    subscribers,
    datasets,
    exports,
    audit,
    purge,
)

DESCRIPTION = """
Lists are `{"data": […], "next_cursor": null | "…"}`, newest first; annotations are ordered by position. Pass the
`next_cursor` of a page as `?cursor=` to get the next one. Times are in UTC. Errors are `application/problem+json`.
Terms are Scale's own where Scale has one. A token that is bound to projects passes `?project=` to lists, and sees nothing of
other projects.
"""


def register(app: Flask, public_url: str | None) -> None:
    """Add the API, its OpenAPI document `/api/openapi.json`, and Swagger UI at `/api/docs`."""
    app.json = OrjsonProvider(app)
    app.config.update(
        API_TITLE="Weighbridge",
        API_VERSION="v1",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/api",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "servers": [{"url": public_url or "/", "description": "This installation."}],
            "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{"token": []}],
        },
    )
    api = Api(app)
    for resource in RESOURCES:
        api.register_blueprint(resource.blueprint)
    # Swagger UI is served from the package: no CDN, no external validator.
    page = {
        "app_name": "Weighbridge",
        "layout": "BaseLayout",
        "validatorUrl": None,
        "oauth2RedirectUrl": None,
    }
    app.register_blueprint(get_swaggerui_blueprint("/api/docs", "/api/openapi.json", config=page))
