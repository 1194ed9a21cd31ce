"""croissant.json: what the files are, in the MLCommons Croissant 1.0 vocabulary, with the sha256 of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import orjson

from exports.format import Format
from exports.formats import tables
from pipeline.datasets.versions import Version

FILE_NAME = "croissant.json"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
ENCODINGS = {
    ".bmp": "image/bmp",
    ".conll": "text/plain",
    ".csv": "text/csv",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".md": "text/markdown",
    ".parquet": "application/x-parquet",
    ".png": "image/png",
    ".tar": "application/x-tar",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".yaml": "application/yaml",
}
DATA_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float64": "sc:Float"}


def croissant(version: Version, format_: Format, files: Sequence[dict[str, Any]]) -> bytes:
    """Return the description of these files: {path, size, sha256} each."""
    name = version.full_name or "export"
    content = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name.replace("@", "-v"),
        "description": f"Labels from Scale, {version.tasks} tasks, exported by Weighbridge as {format_.name}:"
        f" {format_.summary}.",
        "version": f"{version.version or 1}.0.0",
        "identifier": version.digest,
        "keywords": list(version.classes),
        "distribution": [_file(file) for file in files],
        "recordSet": _record_sets(format_, {file["path"] for file in files}),
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def _file(file: dict[str, Any]) -> dict[str, Any]:
    path = file["path"]
    encoding = ENCODINGS.get(PurePosixPath(path).suffix.lower(), "application/octet-stream")
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{file['size']} B",
        "encodingFormat": encoding,
        "sha256": file["sha256"],
    }


def _record_sets(format_: Format, paths: set[str]) -> list[dict[str, Any]]:
    """Return the tables of the formats that have some."""
    found = []
    for name, columns in (
        ("tasks", tables.TASKS),
        ("annotations", tables.ANNOTATIONS),
        ("answers", tables.ANSWERS),
    ):
        path = f"{name}.{format_.name}"
        if path in paths:
            fields = [_field(name, column, type_, path) for column, type_ in columns.items()]
            found.append({"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields})
    return found


def _field(table: str, column: str, type_: str, path: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": column,
        "dataType": DATA_TYPES[type_],
        "source": {"fileObject": {"@id": path}, "extract": {"column": column}},
    }
