"""The JSON Schema of a workflow file, for editors: sections.py through apispec's marshmallow converter."""

from __future__ import annotations

from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields, validate

from workflows.definition.fields import NameField
from workflows.definition.sections import OnErrorField, OnErrorSchema, WorkflowSchema


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a workflow file."""
    plugin = _Plugin(schema_name_resolver=lambda schema: "")  # no name: nested schemas are inlined
    APISpec("Weighbridge workflow", "1", "3.1.0", plugins=[plugin])
    assert plugin.converter is not None
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weighbridge workflow",
        **plugin.converter.schema2jsonschema(WorkflowSchema()),  # type: ignore[no-untyped-call]
    }


class _Converter(OpenAPIConverter):
    """apispec's converter, for sections that refuse unknown keys themselves and for the fields of this language."""

    def schema2jsonschema(self, schema: Schema | type[Schema]) -> dict[str, Any]:
        """Return the JSON Schema of a section."""
        section = schema if isinstance(schema, Schema) else schema()
        summary = (section.__doc__ or "").split("\n")[0]
        return {
            **super().schema2jsonschema(section),  # type: ignore[no-untyped-call]
            "description": summary,
            "additionalProperties": False,
        }

    def field2property(self, field: fields.Field[Any]) -> dict[str, Any]:
        """Return the JSON Schema of a key."""
        found: dict[str, Any] = super().field2property(field)
        found.pop("default", None)  # values as they are loaded: tuples, and types of our own
        return {**found, **self._own(field)}

    def _own(self, field: fields.Field[Any]) -> dict[str, Any]:
        """Return what apispec does not know of a field."""
        if isinstance(field, OnErrorField):
            either = {"oneOf": [{"required": ["retry"]}, {"required": ["start"]}]}
            return {"anyOf": [{"const": "stop"}, {**self.schema2jsonschema(OnErrorSchema), **either}]}
        if (own := getattr(field, "json_schema", None)) is not None:
            return dict(own)
        if (values := field.metadata.get("values")) is not None:
            return {
                "minProperties": 1,
                "propertyNames": NameField.json_schema,
                "additionalProperties": self.schema2jsonschema(values),
            }
        return {key: value for validator in field.validators for key, value in _constraint(validator)}


def _constraint(validator: Any) -> list[tuple[str, Any]]:
    match validator:
        case validate.Regexp():  # ECMA 262 has no \Z
            return [("pattern", "^" + str(validator.regex.pattern).replace(r"\Z", "$"))]
        case _:
            return []


class _Plugin(MarshmallowPlugin):
    Converter = _Converter
