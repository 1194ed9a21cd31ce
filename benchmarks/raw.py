"""The limit: Flask and gunicorn that authenticate, parse, and store the bytes with their digest in one committed INSERT."""

import hashlib
import hmac
import os
import threading

import orjson
import psycopg
from flask import Flask, request

app = Flask("raw")
local = threading.local()


@app.post("/callbacks/scale")
def callback() -> tuple[dict[str, str], int]:
    """Authenticate, parse and store the bytes durably."""
    key = request.headers.get("scale-callback-auth", "")
    if not hmac.compare_digest(key.encode(), os.environ["SCALE_LIVE_CALLBACK_KEYS"].encode()):
        return {"error": "unauthorized"}, 401
    body = request.get_data(cache=False)
    task_id = orjson.loads(body)["task_id"]
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    local.connection.execute(
        "INSERT INTO raw_deliveries (task_id, sha256, body) VALUES (%s, %s, %b)",
        (task_id, hashlib.sha256(body).hexdigest(), body),
    )
    return {"status": "ok"}, 200


def create_tables() -> None:
    """Create the only table."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(
            "CREATE TABLE raw_deliveries (id bigserial PRIMARY KEY, task_id text, sha256 text UNIQUE, body bytea)"
        )
        connection.execute("ALTER TABLE raw_deliveries ALTER body SET STORAGE EXTERNAL")
