"""Pictures of any size, read row by row: photos through Pillow, GeoTIFFs through rasterio (GDAL).

A photo is held in memory; of a GeoTIFF only the rows asked for are. Without rasterio everything
works but GeoTIFFs and pictures over Pillow's limit of 179 megapixels.
"""

from __future__ import annotations

import abc
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ignite_salak.data.decoding import BadFileError, read_photo
from ignite_salak.data.orthomosaics import OrthoImage, open_raster, rasterio_for

__all__ = ["GeoRaster", "Photo", "Picture", "open_picture", "rasterio_for"]

_TIFF_SUFFIXES = (".tif", ".tiff")
_GEO_TAGS = {33550, 33922, 34264, 34735}  # scale, tie points, transformation, keys of GeoTIFF
_PHOTO_PIXELS = 50_000_000  # a larger TIFF is read by rows even if it has no georeference

# Read failures of GDAL are RasterioIOError, which is an OSError; so are Pillow's.
_OPEN_ERRORS = (OSError, SyntaxError, ValueError)


class Picture(abc.ABC):
    """An image file, open for reading; a context manager.

    Args:
        path: the file.
        height: H.
        width: W.
        black_is_nodata: take pure black pixels for "no image content".

    Attributes:
        notes: what a user should know about how the file is read.
        black: pure black pixels among the valid ones read so far.
        crs: coordinate reference system of rasterio, or None.
        transform: affine transform from (column, row) to the CRS, or None.
    """

    def __init__(self, path: Path, height: int, width: int, *, black_is_nodata: bool) -> None:
        self.path = path
        self.height = height
        self.width = width
        self.black_is_nodata = black_is_nodata
        self.notes: list[str] = []
        self.black = 0
        self.crs: Any = None
        self.transform: Any = None

    def read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads rows.

        Returns:
            uint8 [3, rows, W], RGB, black where not valid, as in training; and the valid pixels,
            bool [rows, W].

        Raises:
            BadFileError: the file is damaged.
        """
        pixels, valid = self._read(top, rows)
        black = valid & ((pixels[0] | pixels[1] | pixels[2]) == 0)
        self.black += int(black.sum())
        if self.black_is_nodata:
            valid = valid & ~black
        return pixels * valid, valid

    @abc.abstractmethod
    def _read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the file's pixels, uint8 [3, rows, W], and which of them it calls valid."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the file; nothing can be read then."""

    def __enter__(self) -> Picture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Photo(Picture):
    """A picture without georeference that fits into memory; see ``read_image`` for the formats.

    Pixels that the file marks as fully transparent are not valid.

    Raises:
        BadFileError: see ``read_image``.
    """

    def __init__(self, path: Path, *, black_is_nodata: bool = False) -> None:
        pixels, opaque = read_photo(path)
        super().__init__(path, *pixels.shape[:2], black_is_nodata=black_is_nodata)
        self._pixels = pixels
        self._opaque = opaque

    def _read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = self._pixels[top : top + rows].transpose(2, 0, 1)
        if self._opaque is None:
            return pixels, np.ones(pixels.shape[1:], dtype=bool)
        return pixels, self._opaque[top : top + rows]

    def close(self) -> None:
        """See ``Picture``."""
        self._pixels = self._pixels[:0]


class GeoRaster(Picture):
    """A GeoTIFF, or any other picture that GDAL reads by rows, seen as ``OrthoImage`` sees it.

    Args:
        path: the file.
        black_is_nodata: see ``Picture``.
        bands: numbers of the red, green and blue band, from 1; None finds them.

    Attributes:
        gcps: ground control points of rasterio.

    Raises:
        ImportError: rasterio is not installed.
        BadFileError: see ``OrthoImage``.
    """

    def __init__(
        self,
        path: Path,
        *,
        black_is_nodata: bool = False,
        bands: tuple[int, int, int] | None = None,
    ) -> None:
        image = OrthoImage(path, bands)
        super().__init__(path, image.height, image.width, black_is_nodata=black_is_nodata)
        self._image = image
        self.notes += image.notes
        self.gcps, gcps_crs = image.gcps
        self.crs = image.crs or gcps_crs
        if not image.transform.is_identity:
            self.transform = image.transform

    def _read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        return self._image.read_planes(top, top + rows)

    def close(self) -> None:
        """See ``Picture``."""
        self._image.close()


def open_picture(
    path: Path,
    *,
    black_is_nodata: bool = False,
    bands: tuple[int, int, int] | None = None,
) -> Picture:
    """Opens a photo, a patch or a GeoTIFF.

    A TIFF is a ``GeoRaster`` if it has a georeference, a nodata value, over 50 megapixels or a form
    that Pillow does not know, or if ``bands`` are given; any other picture is if it is over
    Pillow's limit. All others are a ``Photo``.

    Args:
        path: the file.
        black_is_nodata: take pure black pixels for "no image content".
        bands: numbers of the red, green and blue band of a TIFF, from 1; None finds them.

    Raises:
        BadFileError: the file is missing, no picture, damaged, or of a kind that is refused.
        ImportError: it is a ``GeoRaster``, and rasterio is not installed.
    """
    if path.is_file() and _needs_rasterio(path, bands is not None):
        return GeoRaster(path, black_is_nodata=black_is_nodata, bands=bands)
    return Photo(path, black_is_nodata=black_is_nodata)


def _needs_rasterio(path: Path, bands_given: bool) -> bool:
    tiff = path.suffix.lower() in _TIFF_SUFFIXES
    if tiff and bands_given:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels, tags = image.width * image.height, set(getattr(image, "tag_v2", ()))
    except Image.DecompressionBombError:
        return True
    except UnidentifiedImageError:
        return tiff and path.stat().st_size > 0
    except _OPEN_ERRORS:
        return False
    if not tiff:
        return False
    return bool(tags & _GEO_TAGS) or pixels > _PHOTO_PIXELS or _told_by_gdal(path)


def _told_by_gdal(path: Path) -> bool:
    """Whether a TIFF without GeoTIFF tags has a world file or a nodata value."""
    try:
        with open_raster(path) as dataset:
            return not dataset.transform.is_identity or dataset.nodata is not None
    except (ImportError, BadFileError):
        return False
