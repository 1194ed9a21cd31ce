"""Images on a customer's own server, and steps that ask about them."""

import io
from typing import Any

from PIL import Image

from tests.factories.pipelines import Pipeline
from tests.fake_server import FakeServer, ReceivedRequest, reply

PUBLIC = "http://127.0.0.1:9"
QUESTION = {"instruction": "?", "attachment_type": "image", "attachment": "${{ task.params.attachment }}", "categories": ["a", "b"]}  # fmt: skip
BOX = {"label": "car", "uuid": "b1", "type": "box", "left": 20, "top": 10, "width": 40, "height": 20}


def picture(form: str = "PNG", size: tuple[int, int] = (100, 50), mode: str = "RGB", **options: Any) -> bytes:
    """An image whose every pixel tells where it is: red is its column, green its row."""
    image = Image.new("RGB", size)
    image.putdata([(x % 256, y % 256, 0) for y in range(size[1]) for x in range(size[0])])
    written = io.BytesIO()
    image.convert(mode).save(written, form, **options)
    return written.getvalue()


class Pictures:
    """A customer's own server of images."""

    def __init__(self) -> None:
        self.served: dict[str, bytes] = {"/street.png": picture()}
        self.peer = FakeServer(self.answer)
        self.host = f"127.0.0.1:{self.peer.port}"
        self.url = f"{self.peer.url}/street.png"

    def answer(self, asked: ReceivedRequest) -> bytes:
        if asked.path not in self.served:
            return reply(status=404)
        kind = "image/jpeg" if asked.path.endswith("jpg") else "image/png"
        return reply(self.served[asked.path], Content_Type=kind)


def step(**keys: Any) -> dict[str, Any]:
    return {
        "after": {"type": "imageannotation"},
        "create": {"type": "categorization", "params": QUESTION},
        **keys,
    }


def sent(chain: Pipeline) -> list[dict[str, Any]]:
    """The requests that Scale got, oldest first."""
    return [chain.sandbox.original_request(task["task_id"]) for task in chain.sandbox.tasks()]


def path_of(address: str) -> str:
    assert address.startswith(f"{PUBLIC}/files/")
    return address.removeprefix(PUBLIC)
