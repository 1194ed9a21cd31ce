"""Error responses in the forms that Scale sends: bad attachments, bad frames, a plain message."""

from typing import Any

from sandbox.annotators.values import as_dict, as_list

ERROR_KINDS = ("attachments", "frames", "message")
NOT_DOWNLOADED = "One or more attachments could not be downloaded."


def make_error_response(task: dict[str, Any], kind: str) -> dict[str, Any]:
    """Make the `response` of a task whose status is error.

    attachments: every attachment with its `statusCode`; frames: the first frame, downloaded but not parsable (hence 200);
    message: `error` alone, for audio with a partial transcript. A task without attachments gets the message. Raises
    ValueError for another kind. Source: docs, "Errors", and the 2017 docs for audio.
    """
    if kind not in ERROR_KINDS:
        raise ValueError(f"an error is one of {', '.join(ERROR_KINDS)}, not {kind!r}")
    params = as_dict(task.get("params"))
    urls = [params.get("attachment"), *as_list(params.get("attachments"))]
    urls = [url for url in urls if isinstance(url, str)]
    if kind == "attachments" and urls:
        return {"error": NOT_DOWNLOADED, "attachments": [{"statusCode": 403, "url": url} for url in urls]}
    if kind == "frames" and urls:
        return {
            "error": NOT_DOWNLOADED,
            "frames": [
                {
                    "frame": 0,
                    "message": "Invalid JSON Format: Unexpected end of JSON input",
                    "attachment": {"statusCode": 200, "url": urls[0]},
                }
            ],
        }
    if task.get("type") == "audiotranscription":
        return {"error": "The audio file cannot be loaded.", "transcript": "The recording begins with"}
    return {"error": "The task could not be completed."}
