"""One annotation of a response version, at its place in the body or in a result file.

No foreign key: the rows are written in the transaction of their response, and a check of each would cost as much as
the row itself.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base, Json


class Annotation(Base):
    """One annotation of a response version, in Scale's own form. `geometry` has Scale's keys, in pixels, meters or seconds."""

    __tablename__ = "annotations"

    response_id: Mapped[UUID] = mapped_column(primary_key=True)
    file: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """0 in the body; else the ordinal of the artifact that holds it."""
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uuid: Mapped[str | None]
    type: Mapped[str]
    label: Mapped[str | None]
    frame: Mapped[int | None] = mapped_column(BigInteger)
    attributes: Mapped[Any | None] = mapped_column(Json)
    geometry: Mapped[Any] = mapped_column(Json)
    warning: Mapped[str | None]
    """Why it was kept raw."""
