"""The size of an image that was read from the image itself, once for each address."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from models.columns import Base


class ImageSize(Base):
    """The measured size of one image, so that exports do not fetch it again."""

    __tablename__ = "image_sizes"

    address_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    width: Mapped[int]
    height: Mapped[int]
    """Pixels of the image as shown: its EXIF orientation is applied."""
    orientation: Mapped[int]
    """EXIF, 1 to 8; 1 where the image has none."""
    media_type: Mapped[str]
    measured_at: Mapped[datetime]
