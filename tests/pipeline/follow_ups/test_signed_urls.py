"""Signed URLs of request files: they expire, cannot be forged, and are renewed when they are copied on."""

import io
import time

import pytest
import time_machine
from flask.testing import FlaskClient

from pipeline.follow_ups import signed_urls
from tests.factories.pictures import BOX, Pictures, path_of, sent, step
from tests.factories.pipelines import Pipeline


def test_an_address_of_ours_that_is_copied_on_is_fresh_again(chain: Pipeline, pictures: Pictures) -> None:
    chain.workflow({"again": step(mirror="attachment"), "more": step(after={"step": "again"})})
    chain.receive({"annotations": [BOX]}, params={"attachment": pictures.url})
    (child,) = chain.children("again")
    with time_machine.travel(time.time() + 3600, tick=True):
        chain.finish(child, {"category": "a"})
    first, second = (path_of(request["attachment"]) for request in sent(chain))
    settings = chain.service.settings
    one, other = (
        signed_urls.parse_signed(settings, path.removeprefix("/files/")) for path in (first, second)
    )
    assert one is not None
    assert other is not None
    assert one.sha256 == other.sha256
    assert other.until - one.until == pytest.approx(3600, abs=60)


def test_an_address_ends_after_a_week_and_a_forged_one_never_began(chain: Pipeline, web: FlaskClient) -> None:
    sha256, _ = chain.service.store.put(io.BytesIO(b"<script>"))
    address = path_of(signed_urls.signed_url(chain.service.settings, sha256, "text/html"))
    answer = web.get(address)
    assert (answer.status_code, answer.mimetype) == (200, "application/octet-stream")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert web.get(address[:-2] + "xx").status_code == 404
    assert web.get("/files/nothing").status_code == 404
    with time_machine.travel(time.time() + signed_urls.LIFETIME.total_seconds() + 1):
        assert web.get(address).status_code == 410
    chain.service.store.delete(sha256)
    assert web.get(address).status_code == 410
