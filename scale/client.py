"""A thin client for Scale's REST API: one call is one request, and no POST is ever repeated here.

Follow-ups are created with it at the end of a callback's path, and tasks are read with it by reconciliation.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from scale.http import Session, abort_after, cancel_abort

DEFAULT_PAGE_LIMIT = 100
MAX_PATIENCE = 16
"""Factor of the time-outs, and divisor of the page, up to which the pages of a slow list are read."""
THROTTLED_SECONDS = 30.0
"""How long to wait after a 429 without a usable Retry-After."""
MAX_THROTTLED_SECONDS = 3600.0
"""A longer Retry-After is a mistake that would stop creation for days."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_NAME_CHARACTERS = 1_000
Json = dict[str, Any]
Observer = Callable[[str, int | None, float], None]
"""Called after each request with its method, its HTTP status (None: no answer) and its duration in seconds."""


class ScaleError(Exception):
    """Raised when a call to Scale's API fails. `message` is Scale's own, if there is one.

    `status` is the HTTP status (None: no answer), `body` the answer as JSON or the start of its text, `retry_after` the
    seconds to wait.
    """

    def __init__(
        self, message: str, status: int | None = None, body: Any = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.body = body
        self.retry_after = retry_after


class PermanentError(ScaleError):
    """Raised when the same request would fail again: for 400, 402, 404 and others, or if it cannot be serialized."""


class Conflict(PermanentError):
    """Raised for 409. `existing_task_id` is the task that already has the unique_id; None if the message has no id."""

    @property
    def existing_task_id(self) -> str | None:
        """Return the id of the task that has the unique_id already, or None if Scale's message names none."""
        # The unique_id is in the same text and may contain parentheses itself, so the last match is Scale's.
        found = re.findall(r"different task \(([^()\s]+)\)", self.message)
        return found[-1] if found else None


class Unauthorized(ScaleError):
    """Raised for 401 or 403: the key, not the request, is at fault."""


class Throttled(ScaleError):
    """Raised for 429: every worker should wait for `delay` seconds."""

    @property
    def delay(self) -> float:
        """Return the seconds to wait: those that Scale asked for, or THROTTLED_SECONDS."""
        return self.retry_after or THROTTLED_SECONDS  # 0 would repeat the request at once, again and again


class TransientError(ScaleError):
    """Raised for a time-out, a reset, 5xx or an unreadable answer. Whether a POST was executed is unknown."""


class TimedOut(TransientError):
    """Raised when Scale did not answer within the time-outs."""


class Client:
    """Scale's API at `base_url` under one key. Threads may share it; each has its own connections.

    Every method raises a ScaleError. `connect_timeout` and `read_timeout` are seconds of silence, `total_timeout`
    bounds the whole answer. Source: docs, "API Reference"; paths as the official SDK 2.18 uses them.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_timeout: float = 3,
        read_timeout: float = 15,
        total_timeout: float = 45,
        observe: Observer = lambda method, status, seconds: None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"not the address of an API: {base_url!r}")
        self._base_url = base_url.rstrip("/")
        self._auth = (api_key.encode().decode("latin-1"), "")  # requests writes latin-1
        self._api_key = api_key
        self._timeout = (connect_timeout, read_timeout)
        self._total_timeout = total_timeout
        self._observe = observe
        self._threads = threading.local()

    # --- tasks

    def create_task(self, type: str, body: Json) -> Json:
        """POST /task/{type}: the new task. Conflict if the body's unique_id is taken."""
        return self._task("POST", f"task/{_quoted(type, 'task type')}", body=body)

    def get_task(self, task_id: str) -> Json:
        """Return one task. Raises ScaleError."""
        return self._task("GET", _task_path(task_id))

    def cancel_task(self, task_id: str, clear_unique_id: bool = False) -> Json:
        """Cancel a pending task. A completed one is a PermanentError, a canceled one is returned as it is."""
        query = {"clear_unique_id": "true"} if clear_unique_id else {}
        try:
            return self._task("POST", _task_path(task_id, "cancel"), query=query)
        except TransientError as error:
            # Scale used to answer 500 here, and says 400 today.
            if error.status == 500 and "cannot be canceled" in error.message:
                raise PermanentError(error.message, error.status, error.body) from error
            raise

    def set_unique_id(self, task_id: str, unique_id: str) -> Json:
        """Set the unique_id of a task. Raises Conflict if another task has it."""
        return self._task("POST", _task_path(task_id, "unique_id"), body={"unique_id": unique_id})

    def clear_unique_id(self, task_id: str) -> Json:
        """Free the unique_id of a task for another one."""
        return self._task("DELETE", _task_path(task_id, "unique_id"))

    def set_tags(self, task_id: str, tags: list[str]) -> Json:
        """Replace the tags of a task, five at most."""
        return self._task("POST", _task_path(task_id, "tags"), body=tags)

    def add_tags(self, task_id: str, tags: list[str]) -> Json:
        """Add tags to a task, which has five at most."""
        return self._task("PUT", _task_path(task_id, "tags"), body=tags)

    def remove_tags(self, task_id: str, tags: list[str]) -> Json:
        """Remove tags from a task."""
        return self._task("DELETE", _task_path(task_id, "tags"), body=tags)

    def set_metadata(self, task_id: str, metadata: Json) -> Json:
        """Replace the whole metadata of a task."""
        return self._task("POST", _task_path(task_id, "setMetadata"), body=metadata)

    def audit(self, task_id: str, accepted: bool, comments: str | None = None) -> Any:
        """Accept or reject a completed task. Scale sends an audit callback for it."""
        body = {"accepted": accepted, "comments": comments}
        return self._call("POST", _task_path(task_id, "audit"), body=body)

    def resend_callback(self, task_id: str) -> Any:
        """Ask Scale to send a finished task's callback again. The path is not in Scale's published documents."""
        return self._call("POST", _task_path(task_id, "send_callback"))

    def list_tasks(self, **filters: Any) -> Json:
        """GET /tasks: one page {docs, total, limit, has_more, next_token?, offset?}, newest first.

        Filters are Scale's (type, status, project, batch, unique_id, tags, updated_after, limit, next_token, …).
        A list repeats its parameter (customer_review_status is joined by commas), datetimes go out as UTC, None is left out.
        """
        return self._page("tasks", filters)

    def iter_task_pages(self, **filters: Any) -> Iterator[Json]:
        """Yield every page of a list, each whole, so that a caller can keep `next_token` and continue there after a stop."""
        return self._pages("tasks", filters)

    def iter_tasks(self, **filters: Any) -> Iterator[Json]:
        """Yield every task that matches `filters`, page by page, newest first."""
        for page in self._pages("tasks", filters):
            yield from page["docs"]

    def task_by_unique_id(self, unique_id: str) -> Json | None:
        """Return the task with this unique_id, or None. Answers whether a POST that timed out has created its task."""
        docs = self.list_tasks(unique_id=[unique_id])["docs"]
        return next((task for task in docs if task.get("unique_id") == unique_id), None)

    # --- projects

    def create_project(self, name: str, type: str, params: Json | None = None, **fields: Any) -> Json:
        """Create a project for tasks of one type. `fields`: rapid, studio and other options of Scale."""
        return self._object("POST", "projects", body={"name": name, "type": type, "params": params, **fields})

    def get_project(self, name: str) -> Json:
        """Return one project; `param_history` holds every version of its parameters, the last one in force."""
        return self._object("GET", f"projects/{_quoted(name, 'project')}")

    def list_projects(self) -> list[Json]:
        """Return all projects. Scale does not page them."""
        answer = self._call("GET", "projects")
        if not isinstance(answer, list):
            raise TransientError("Scale's answer is not a list of projects", 200, answer)
        return answer

    def set_project_params(self, name: str, params: Json, patch: bool = False) -> Json:
        """Create a new version of a project's parameters; `patch` keeps those that `params` does not name."""
        return self._object(
            "POST", f"projects/{_quoted(name, 'project')}/setParams", body={**params, "patch": patch}
        )

    # --- batches

    def create_batch(self, project: str, name: str, callback: str | None = None, **fields: Any) -> Json:
        """Create a batch in a project. `callback` is a URL or an e-mail address."""
        body = {"project": project, "name": name, "callback": callback, **fields}
        return self._object(
            "POST", "batches", body={key: value for key, value in body.items() if value is not None}
        )

    def get_batch(self, name: str) -> Json:
        """Return one batch."""
        return self._object("GET", f"batches/{_quoted(name, 'batch')}")

    def batch_status(self, name: str) -> Json:
        """Return {status, pending?, completed?, error?, canceled?}; a count that is left out is 0."""
        return self._object("GET", f"batches/{_quoted(name, 'batch')}/status")

    def finalize_batch(self, name: str) -> Json:
        """Finalize a batch, so that work on it starts."""
        return self._object("POST", f"batches/{_quoted(name, 'batch')}/finalize")

    def set_batch_metadata(self, name: str, metadata: Json) -> Json:
        """Replace the whole metadata of a batch."""
        return self._object("POST", f"batches/{_quoted(name, 'batch')}/setMetadata", body=metadata)

    def list_batches(self, **filters: Any) -> Json:
        """GET /batches: one page {docs, totalDocs (or total), limit, offset, has_more}, newest first."""
        return self._page("batches", filters)

    def iter_batches(self, **filters: Any) -> Iterator[Json]:
        """Yield every batch that matches `filters`, page by page, newest first."""
        for page in self._pages("batches", filters):
            yield from page["docs"]

    # --- one call

    def _task(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Json:
        answer = self._object(method, path, body=body, query=query)
        if not isinstance(answer.get("task_id"), str):
            raise TransientError("Scale's answer is not a task", 200, answer)
        return answer

    def _object(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Json:
        answer = self._call(method, path, body=body, query=query)
        if not isinstance(answer, dict):
            raise TransientError("Scale's answer is not an object", 200, answer)
        return answer

    def _page(self, path: str, filters: Mapping[str, Any]) -> Json:
        page = self._object("GET", path, query=_query(filters))
        docs = page.get("docs")
        if not isinstance(docs, list) or not all(isinstance(doc, dict) for doc in docs):
            raise TransientError("Scale's answer is not a page of a list", 200, page)
        return page

    def _page_with_patience(self, path: str, filters: Mapping[str, Any], patience: int) -> tuple[Json, int]:
        """Read one page with `patience` times the time-outs, and again with twice that and half the page while it times
        out. Returns the page and the patience that it took, with which the next page begins.
        """
        limit = _number(filters.get("limit"), DEFAULT_PAGE_LIMIT)
        while True:
            reader, wanted = self, dict(filters)
            if patience > 1:
                reader, wanted["limit"] = self._with_patience(patience), max(1, limit // patience)
            try:
                return reader._page(path, wanted), patience
            except TimedOut:
                if patience >= MAX_PATIENCE:
                    raise
                patience *= 2

    def _with_patience(self, patience: int) -> "Client":
        connect, read = self._timeout
        return Client(
            self._base_url,
            self._api_key,
            connect_timeout=connect,
            read_timeout=read * patience,
            total_timeout=self._total_timeout * patience,
            observe=self._observe,
        )

    def _pages(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        """Yield pages by next_token where Scale gives one, else by offset. A server that ignores both must not block forever."""
        position: Json = {}
        patience = 1
        last_docs: list[Json] = []
        while True:
            page, patience = self._page_with_patience(path, {**filters, **position}, patience)
            docs = page["docs"]
            if docs and docs == last_docs:
                raise TransientError("Scale's list does not go on: the same page came twice", 200)
            yield page
            last_docs = docs
            if not page.get("has_more") or not docs:
                return
            if page.get("next_token"):
                position = {"next_token": page["next_token"]}
            else:
                position = {"offset": _number(page.get("offset"), position.get("offset", 0)) + len(docs)}

    def _call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """Make one request and return its JSON answer."""
        headers = {}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            try:
                data = json.dumps(body, allow_nan=False).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise PermanentError(f"The request can't be written as JSON: {error}") from error
        started = time.monotonic()
        deadline = started + self._total_timeout
        status = None
        try:
            with self._session().request(
                method,
                f"{self._base_url}/{path}",
                params=query,
                data=data,
                headers=headers,
                auth=self._auth,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                content = _read(response, deadline)
                status = response.status_code
        except UnicodeError as error:
            raise PermanentError(f"The request can't be written: {error}") from error
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            kind = TimedOut if _is_timeout(error, deadline) else TransientError
            raise kind(_what_went_wrong(error, deadline)) from error
        finally:
            self._observe(method, status, time.monotonic() - started)
        if response.status_code // 100 != 2:
            _refuse(response, content)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            message = f"Scale answered {response.status_code} with a body that is not JSON"
            raise TransientError(message, response.status_code, _text(content)) from error

    def _session(self) -> requests.Session:
        """Return this thread's session. A forked child gets its own, because it must not share its parent's sockets."""
        if getattr(self._threads, "process", None) != os.getpid():
            session = Session()
            session.headers["User-Agent"] = "weighbridge"
            abort_after(session, self._total_timeout)
            self._threads.process, self._threads.session = os.getpid(), session
        kept: Session = self._threads.session
        return kept


def _read(response: requests.Response, deadline: float) -> bytes:
    content = bytearray()
    try:
        for chunk in response.iter_content(65536):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                raise PermanentError(
                    f"Scale's answer is larger than {MAX_ANSWER_BYTES:,} bytes", response.status_code
                )
        if time.monotonic() > deadline:  # a body without a length ends the same way when it is cut
            raise TimeoutError
    finally:
        cancel_abort(response)
    return bytes(content)


def _is_timeout(error: Exception, deadline: float) -> bool:
    """Return whether Scale was reached and took too long."""
    if isinstance(error, requests.ConnectTimeout):
        return False
    reading = bool(error.args) and isinstance(
        error.args[0], ReadTimeoutError
    )  # of a body, within a ConnectionError
    return reading or isinstance(error, (requests.Timeout, TimeoutError)) or time.monotonic() > deadline


def _what_went_wrong(error: Exception, deadline: float) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return "Scale could not be reached in time"
    if _is_timeout(error, deadline):
        return "Scale did not answer in time"
    return f"The connection to Scale failed ({type(error).__name__})"


# --- what goes out


def _quoted(name: str, what: str) -> str:
    """Quote a name or id as one segment of a path. Dots alone would mean the parent folder."""
    if not isinstance(name, str) or not name.isprintable() or name.strip() in ("", ".", ".."):
        raise PermanentError(f"not a {what}: {name!r}")
    if len(name) > MAX_NAME_CHARACTERS:
        raise PermanentError(f"a {what} of {len(name):,} characters")
    return quote(name, safe="")


def _task_path(task_id: str, call: str | None = None) -> str:
    path = f"task/{_quoted(task_id, 'task id')}"
    return f"{path}/{call}" if call else path


def _query(filters: Mapping[str, Any]) -> dict[str, Any]:
    query: dict[str, Any] = {}
    for name, value in filters.items():
        if value is None:
            continue
        if name == "customer_review_status" and isinstance(value, (list, tuple)):
            value = ",".join(value)
        query[name] = (
            [_parameter(one) for one in value] if isinstance(value, (list, tuple)) else _parameter(value)
        )
    return query


def _parameter(value: Any) -> str:
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return utc.isoformat().replace("+00:00", "Z")
    return str(value)


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


# --- what comes back


def _refuse(response: requests.Response, content: bytes) -> NoReturn:
    """Raise the exception for an answer that is not 2xx."""
    status = response.status_code
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = _text(content)
    message = _message(body) or f"Scale answered {status} {response.reason or ''}".rstrip()
    retry_after = _retry_after(response.headers.get("Retry-After"))
    kind: type[ScaleError] = PermanentError
    if status in (401, 403):
        kind = Unauthorized
    elif status == 409:
        kind = Conflict
    elif status == 429:
        kind = Throttled
    elif status < 400 or status in (408, 425) or status >= 500:
        # A redirect comes from a wrong SCALE_API_URL or from something between us and Scale: not Scale's last word.
        kind = TransientError
    raise kind(message, status, body, retry_after)


def _message(body: Any) -> str | None:
    """Scale's words: {"status_code", "error": "…"}, {"message"} or {"error": {"message"}}, or a short plain text."""
    if isinstance(body, dict):
        said = body.get("error") or body.get("message") or body.get("detail")
        return _message(said) if isinstance(said, dict) else str(said)[:2000] if said else None
    if isinstance(body, str) and body and "<" not in body:
        return body[:300]
    return None


def _text(content: bytes) -> str:
    return content[:2000].decode(errors="replace").strip()


def _retry_after(value: str | None) -> float | None:
    """Seconds, at most MAX_THROTTLED_SECONDS, from a number or an HTTP date; None where there is neither."""
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return min(float(value), MAX_THROTTLED_SECONDS)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), MAX_THROTTLED_SECONDS)
