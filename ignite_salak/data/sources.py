"""Photos, orthomosaics and masks, opened alike: what their headers say, and strips of rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

from ignite_salak.data.decoding import BadFileError, MaskReader, read_image, read_photo
from ignite_salak.data.ortho_masks import MaskTable, OrthoMask
from ignite_salak.data.orthomosaics import OrthoImage

__all__ = ["Header", "ImageSource", "MaskSource", "read_header"]

_MAX_PIXELS = 178_956_970  # Pillow refuses more
_TIFF_SUFFIXES = (".tif", ".tiff")
_WIDTH, _LENGTH, _BITS, _SAMPLES = 256, 257, 258, 277
_GEO_TAGS = (33550, 33922, 34264, 34735, 42113)  # georeference in three ways, its key, nodata
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are decoded.

    Attributes:
        path: the file.
        height: rows, once it stands upright.
        width: columns, once it stands upright.
        large: to be read by strips: it is georeferenced, has a nodata value, or is too large to be
            decoded at once.
        orientation: EXIF orientation; 1 is upright.
    """

    path: Path
    height: int
    width: int
    large: bool = False
    orientation: int = 1

    @property
    def size(self) -> str:
        """Width and height, for messages."""
        return f"{self.width} x {self.height}"


def read_header(path: Path) -> Header:
    """Reads what a photo, orthomosaic or mask says of itself.

    Raises:
        BadFileError: the file is missing or no image.
    """
    tags = _tiff_tags(path) if path.suffix.lower() in _TIFF_SUFFIXES else None
    if tags is not None:
        height, width = int(tags[_LENGTH]), int(tags[_WIDTH])
        if any(tag in tags for tag in _GEO_TAGS) or height * width > _MAX_PIXELS:
            return Header(path, height, width, large=True)
    try:
        with Image.open(path) as image:
            return _header(path, image)
    except Image.DecompressionBombError:
        ortho = OrthoImage(path)
        ortho.close()
        return Header(path, ortho.height, ortho.width, large=True)
    except Exception as error:  # Pillow's parsers of broken headers raise anything
        if tags is not None:
            raise BadFileError(_describe(path, tags)) from error
        read_image(path)  # knows the reason
        raise BadFileError(f"{path}: the file cannot be decoded ({error})") from error


class ImageSource:
    """A photo or orthomosaic, open; to be closed.

    Args:
        header: of the file.

    Raises:
        BadFileError: it cannot be decoded.
    """

    def __init__(self, header: Header) -> None:
        self._ortho: OrthoImage | None = None
        self._opaque: np.ndarray | None = None
        if header.large:
            self._ortho = OrthoImage(header.path)
        else:
            self._pixels, self._opaque = read_photo(header.path)

    def read(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns some rows.

        Returns:
            uint8 [bottom - top, W, 3], RGB, and which of the pixels have content, bool
            [bottom - top, W], or None where all have.
        """
        if self._ortho is not None:
            return self._ortho.read(top, bottom)
        opaque = self._opaque
        return self._pixels[top:bottom], None if opaque is None else opaque[top:bottom]

    def close(self) -> None:
        """Closes the file."""
        if self._ortho is not None:
            self._ortho.close()


class MaskSource:
    """A mask, open; to be closed.

    Args:
        header: of the file.
        reader: how masks are read.
        table: what the values of a large mask mean.

    Raises:
        BadFileError: it cannot be decoded.
    """

    def __init__(self, header: Header, reader: MaskReader, table: MaskTable | None) -> None:
        self._ortho, self._table = None, table
        if header.large:
            self._ortho = OrthoMask(header.path)
        else:
            self._labels, _ = reader.read(header.path)

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Returns class indices of some rows, uint8 [bottom - top, W], the caller's to change."""
        if self._ortho is not None and self._table is not None:
            return self._ortho.read(top, bottom, self._table)
        return self._labels[top:bottom].copy()

    def close(self) -> None:
        """Closes the file."""
        if self._ortho is not None:
            self._ortho.close()


def _header(path: Path, image: Image.Image) -> Header:
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    width, height = image.size
    if orientation in _SIDEWAYS:
        width, height = height, width
    return Header(
        path,
        height,
        width,
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def _tiff_tags(path: Path) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """The first directory of a TIFF file, which Pillow opens only for the pixels that it knows."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[2:4] in (b"\x2b\x00", b"\x00\x2b"):  # BigTIFF has a longer header
                start += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(start)
            file.seek(tags.next)
            tags.load(file)
            return tags if _WIDTH in tags and _LENGTH in tags else None
    except Exception:  # no TIFF, or a broken one: read_image says why
        return None


def _describe(path: Path, tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    bits = tags.get(_BITS, (1,))
    return (
        f"{path}: a TIFF file with {tags.get(_SAMPLES, 1)} band(s) of "
        f"{max(bits) if isinstance(bits, tuple) else bits} bits, which cannot be decoded; convert "
        "the image to 8-bit RGB"
    )
