"""Files: the results that responses point to, and what customers upload. Anyone who knows an address may read it."""

import io
import time
import uuid
from urllib.parse import urlsplit

import requests
from PIL import Image

from sandbox.storage import clock
from sandbox.storage.store import Store, StoredFile

MAX_READ_BYTES = 64 * 2**20
READ_SECONDS = 3.0
FORGET_UNREACHABLE_SECONDS = 60.0


class Files:
    """The files of one sandbox that is reached at `address`."""

    def __init__(self, store: Store, address: str) -> None:
        self._store = store
        self._address = address.rstrip("/")
        self._unreachable: dict[str, float] = {}

    def put(self, content: bytes, media_type: str) -> str:
        """Keep a result file and name its address."""
        return self.address_of(self.keep(content, media_type).id)

    def keep(
        self,
        content: bytes | None,
        media_type: str,
        account: str | None = None,
        url: str | None = None,
        project_names: list[str] | None = None,
    ) -> StoredFile:
        file = StoredFile(
            id=str(uuid.uuid4()),
            account=account,
            media_type=media_type,
            content=content,
            size=None if content is None else len(content),
            url=url,
            project_names=project_names or [],
            created_at=clock.now(),
        )
        with self._store.write() as session:
            session.add(file)
        return file

    def get(self, file_id: str) -> StoredFile | None:
        with self._store.read() as session:
            file = session.get(StoredFile, file_id)
            if file is not None:
                _ = file.content
            return file

    def address_of(self, file_id: str) -> str:
        return f"{self._address}/files/{file_id}"

    def read(self, url: str, outside: bool = True) -> bytes | None:
        """Content of a file of ours, or, where `outside` is allowed, of any web address; None when it can't be had."""
        if url.startswith((f"{self._address}/files/", "scaledata://")):
            file = self.get(url.rpartition("/")[2])
            if file is None:
                return None
            if file.content is not None or file.url is None:
                return file.content
            url = file.url
        return self._fetch(url) if outside and url.startswith(("http://", "https://")) else None

    def image_size(self, url: str, outside: bool = True) -> tuple[int, int] | None:
        """Width and height in pixels; None for what can't be had or is no image."""
        content = self.read(url, outside)
        if content is None:
            return None
        try:
            with Image.open(io.BytesIO(content)) as image:
                return image.size
        except (OSError, ValueError, Image.DecompressionBombError):
            return None

    def _fetch(self, url: str) -> bytes | None:
        """One GET, bounded in time and size. A host that did not answer is left in peace for a minute."""
        host = urlsplit(url).netloc
        if self._unreachable.get(host, 0) > time.monotonic():
            return None
        end = time.monotonic() + READ_SECONDS
        content = bytearray()
        try:
            with requests.get(url, timeout=READ_SECONDS, stream=True) as answer:
                if answer.status_code != 200:
                    return None
                for part in answer.iter_content(64 * 1024):
                    content += part
                    if len(content) > MAX_READ_BYTES or time.monotonic() > end:
                        return None
        except (requests.RequestException, ValueError):
            self._unreachable[host] = time.monotonic() + FORGET_UNREACHABLE_SECONDS
            return None
        return bytes(content)
