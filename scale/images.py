"""Open images that come from outside: only formats that Pillow decodes itself, in memory that the header bounds.

Pillow knows some forty formats. EPS starts Ghostscript, and containers such as ICO decode an image of any size before it can
be measured.
"""

from pathlib import Path
from typing import BinaryIO

from PIL import Image

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def open_image(source: BinaryIO | Path) -> Image.Image:
    """Open an image of one of IMAGE_FORMATS without decoding it. Raises OSError for any other file."""
    Image.init()  # registers every plugin, once; Image.open(formats=…) fails for one that is not registered
    return Image.open(source, formats=IMAGE_FORMATS)
