"""Tables of models as SQLAlchemy Core sees them, for statements that name every column or are built once."""

from __future__ import annotations

from typing import cast

from sqlalchemy import Table

from models import FollowUp, Join, Task

TASKS = cast(Table, Task.__table__)
FOLLOW_UPS = cast(Table, FollowUp.__table__)
JOINS = cast(Table, Join.__table__)
