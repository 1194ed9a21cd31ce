"""Tokens that expire and rotate."""

import json
from datetime import timedelta

from sqlalchemy import update

from models import ApiToken
from pipeline.access.tokens import holder
from pipeline.db.ids import utcnow
from pipeline.service import Service
from tests.app.commands.conftest import Run


def is_valid(service: Service, token: str) -> bool:
    with service.reader.begin() as connection:
        return holder(connection, token) is not None


def expire(service: Service) -> None:
    """Move the end of every token that has one into the past."""
    with service.engine.begin() as connection:
        ended = update(ApiToken).where(ApiToken.expires_at.is_not(None))
        connection.execute(ended.values(expires_at=utcnow() - timedelta(seconds=1)))


def test_a_token_expires(weighbridge: Run, service: Service) -> None:
    token = weighbridge("tokens", "create", "ci", "--expires", "90d").stdout.strip()
    lasting = weighbridge("tokens", "create", "other").stdout.strip()
    assert is_valid(service, token)
    expire(service)
    assert not is_valid(service, token)
    assert is_valid(service, lasting)
    assert weighbridge("tokens", "create", "late", "--expires", "2020-01-01").exit_code == 2


def test_a_rotated_token_has_the_same_scopes_and_the_former_one_ends(
    weighbridge: Run, service: Service
) -> None:
    former = weighbridge("tokens", "create", "ci", "--scope", "read").stdout.strip()
    token = weighbridge("tokens", "rotate", "ci").stdout.strip()
    assert is_valid(service, former)
    assert is_valid(service, token)
    with service.reader.begin() as connection:
        assert holder(connection, token) == holder(connection, former)
    expire(service)
    assert not is_valid(service, former)
    assert is_valid(service, token)
    at_once = weighbridge("tokens", "rotate", "ci", "--overlap-hours", "0", "--json").stdout
    assert not is_valid(service, token)
    assert is_valid(service, json.loads(at_once)["token"])
    assert weighbridge("tokens", "rotate", "nobody").exit_code == 1
