"""Store result files and uploads, and read attachments. Files are readable without a key by anyone who knows the URL."""

import io
import time
import uuid
from urllib.parse import urlsplit

import requests
from PIL import Image

from sandbox.storage import clock
from sandbox.storage.store import Store, StoredFile
from scale.images import open_image

MAX_READ_BYTES = 64 * 2**20
READ_TIMEOUT_SECONDS = 3.0
UNREACHABLE_TTL_SECONDS = 60.0
CHUNK_BYTES = 64 * 1024


class Files:
    """Hold the files of one sandbox with this base URL."""

    def __init__(self, store: Store, url: str) -> None:
        """Use `store` for content and `url` as the prefix of file URLs."""
        self._store = store
        self._url = url.rstrip("/")
        self._unreachable: dict[str, float] = {}

    def put(self, content: bytes, media_type: str) -> str:
        """Store a result file and return its URL."""
        return self.url_of(self.add(content, media_type).id)

    def add(
        self,
        content: bytes | None,
        media_type: str,
        account: str | None = None,
        url: str | None = None,
        project_names: list[str] | None = None,
    ) -> StoredFile:
        """Store an upload, or an import that has no content but a `url`."""
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
        """Return a file with its content, or None."""
        with self._store.read() as session:
            file = session.get(StoredFile, file_id)
            if file is not None:
                _ = file.content  # loads the deferred column
            return file

    def url_of(self, file_id: str) -> str:
        """Return the URL of a file's content."""
        return f"{self._url}/files/{file_id}"

    def read(self, url: str, download: bool = True) -> bytes | None:
        """Return the content of a stored file or, with `download`, of any web URL; None if it cannot be read."""
        if url.startswith((f"{self._url}/files/", "scaledata://")):
            file = self.get(url.rpartition("/")[2])
            if file is None:
                return None
            if file.content is not None or file.url is None:
                return file.content
            url = file.url
        return self._download(url) if download and url.startswith(("http://", "https://")) else None

    def image_size(self, url: str, download: bool = True) -> tuple[int, int] | None:
        """Return width and height in pixels; None if the file cannot be read or is not an image."""
        content = self.read(url, download)
        if content is None:
            return None
        try:
            with open_image(io.BytesIO(content)) as image:
                return image.size
        except (OSError, ValueError, Image.DecompressionBombError):
            return None

    def _download(self, url: str) -> bytes | None:
        """Download a file, bounded in time and size. A host that did not answer is skipped for a minute."""
        host = urlsplit(url).netloc
        if self._unreachable.get(host, 0) > time.monotonic():
            return None
        deadline = time.monotonic() + READ_TIMEOUT_SECONDS
        content = bytearray()
        try:
            with requests.get(url, timeout=READ_TIMEOUT_SECONDS, stream=True) as response:
                if response.status_code != 200:
                    return None
                for part in response.iter_content(CHUNK_BYTES):
                    content += part
                    if len(content) > MAX_READ_BYTES or time.monotonic() > deadline:
                        return None
        except (requests.RequestException, ValueError):
            self._unreachable[host] = time.monotonic() + UNREACHABLE_TTL_SECONDS
            return None
        return bytes(content)
