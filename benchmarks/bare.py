"""The floor: Flask and gunicorn that read a callback's body and answer 200, and do nothing else."""

from flask import Flask, request

app = Flask("bare")


@app.post("/callbacks/scale")
def callback() -> tuple[dict[str, str], int]:
    request.get_data(cache=False)
    return {"status": "ok"}, 200
