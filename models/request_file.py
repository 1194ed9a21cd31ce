"""A file that was made for requests: a crop, a copy of an attachment, a layers file. Its content is in the artifact store."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class RequestFile(Base):
    """A file that was built for requests to Scale, such as a crop, found again by what it was built from."""

    __tablename__ = "request_files"

    recipe: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Digest of what it was made of and how: the same recipe is followed once."""
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    made_at: Mapped[datetime]

    __table_args__ = (Index("ix_request_files_sha256", "sha256"),)
