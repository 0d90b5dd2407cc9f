"""Pictures of any size, read row by row: photos through Pillow, GeoTIFFs through rasterio (GDAL).

A photo is held in memory; of a GeoTIFF only the rows asked for are. Without rasterio everything
works but GeoTIFFs and pictures over Pillow's limit of 179 megapixels.
"""

from __future__ import annotations

import abc
import warnings
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ignite_salak.data.decoding import BadFileError, read_image

__all__ = ["GeoRaster", "Photo", "Picture", "open_picture", "rasterio_for"]

_TIFF_SUFFIXES = (".tif", ".tiff")
_GEO_TAGS = {33550, 33922, 34264, 34735}  # scale, tie points, transformation, keys of GeoTIFF
_PHOTO_PIXELS = 50_000_000  # a larger TIFF is read by rows even if it has no georeference
_CACHE_MEGABYTES = 64
_EXIF_ORIENTATION = 0x0112

# Read failures of GDAL are RasterioIOError, which is an OSError; so are Pillow's.
_OPEN_ERRORS = (OSError, SyntaxError, ValueError)


def rasterio_for(purpose: str) -> ModuleType:
    """Imports rasterio, which is optional.

    Raises:
        ImportError: it is not installed; the message names the purpose and the remedy.
    """
    try:
        import rasterio
    except ImportError as error:
        raise ImportError(f'{purpose} needs rasterio: pip install "ignite-salak[geo]"') from error
    return rasterio


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
        pixels = read_image(path)
        super().__init__(path, *pixels.shape[:2], black_is_nodata=black_is_nodata)
        self._pixels = pixels
        self._opaque = _opaque(path)

    def _read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = self._pixels[top : top + rows].transpose(2, 0, 1)
        if self._opaque is None:
            return pixels, np.ones(pixels.shape[1:], dtype=bool)
        return pixels, self._opaque[top : top + rows]

    def close(self) -> None:
        """See ``Picture``."""
        self._pixels = self._pixels[:0]


class GeoRaster(Picture):
    """A GeoTIFF, or any other picture that GDAL reads by rows.

    Valid are the pixels that the file's own mask, alpha band or nodata value calls so. Red, green
    and blue are found by the colour interpretation of the bands; one grey band stands for all
    three, and one palette band is expanded.

    Args:
        path: the file.
        black_is_nodata: see ``Picture``.
        bands: numbers of the red, green and blue band, from 1; None finds them.

    Raises:
        ImportError: rasterio is not installed.
        BadFileError: the file is no raster, has over 8 bits a channel, or bands of which it does
            not say which are red, green and blue.
    """

    def __init__(
        self,
        path: Path,
        *,
        black_is_nodata: bool = False,
        bands: tuple[int, int, int] | None = None,
    ) -> None:
        rasterio = rasterio_for(f"{path}: a GeoTIFF or very large picture")
        self._dataset = _open(rasterio, path)
        dataset = self._dataset
        super().__init__(path, dataset.height, dataset.width, black_is_nodata=black_is_nodata)
        self._rasterio = rasterio
        self._lookup: np.ndarray | None = None
        try:
            self._check_depth()
            self._bands = self._find_bands() if bands is None else self._given_bands(bands)
        except BaseException:
            dataset.close()
            raise
        self.gcps, gcps_crs = dataset.gcps
        self.crs = dataset.crs or gcps_crs
        if not dataset.transform.is_identity:
            self.transform = dataset.transform

    def _check_depth(self) -> None:
        kinds = sorted(set(self._dataset.dtypes))
        bits = self._dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "8")
        if kinds != ["uint8"]:
            raise BadFileError(
                f"{self.path}: {' and '.join(kinds)} pixels, expected 8 bits a channel; convert it "
                f"as the training images were, for example by gdal_translate -ot Byte -scale LOW "
                f"HIGH 0 255 {self.path.name} 8bit.tif, with the sensor's lowest and highest value"
            )
        if bits not in ("1", "8"):
            raise BadFileError(
                f"{self.path}: {bits} bits a channel; convert it by gdal_translate -co NBITS=8 "
                f"-scale {self.path.name} 8bit.tif"
            )

    def _given_bands(self, bands: tuple[int, int, int]) -> tuple[int, ...]:
        if not all(1 <= band <= self._dataset.count for band in bands):
            raise BadFileError(
                f"{self.path}: --bands {' '.join(map(str, bands))}, but it has "
                f"{self._dataset.count} band(s), counted from 1"
            )
        return bands

    def _find_bands(self) -> tuple[int, ...]:
        """Returns the numbers of red, green and blue, or of a single band."""
        names = [meaning.name for meaning in self._dataset.colorinterp]
        colors = [name for name in names if name != "alpha"]
        if {"red", "green", "blue"} <= set(names):
            unused = [f"{n + 1} ({name})" for n, name in enumerate(names) if name not in _USED]
            if unused:
                self.notes.append(f"red, green and blue are used, not band {', '.join(unused)}")
            return tuple(names.index(color) + 1 for color in ("red", "green", "blue"))
        if colors == ["palette"]:
            self._lookup = _palette(self._dataset.colormap(names.index("palette") + 1))
            return (names.index("palette") + 1,)
        if colors == ["gray"]:
            self.notes.append("one grey band stands for red, green and blue")
            return (names.index("gray") + 1,)
        raise BadFileError(
            f"{self.path}: its bands are {', '.join(names)}: which are red, green and blue? Say so "
            "by --bands, such as --bands 1 2 3"
        )

    def _read(self, top: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        window = self._rasterio.windows.Window(0, top, self.width, rows)
        try:
            # GDAL settles the size of its cache, by default 5 % of the memory, at the first read.
            with self._rasterio.Env(GDAL_CACHEMAX=_CACHE_MEGABYTES):
                pixels = self._dataset.read(list(self._bands), window=window)
                valid = self._dataset.dataset_mask(window=window) > 0
        except OSError as error:
            raise BadFileError(
                f"{self.path}: rows {top} to {top + rows} cannot be read ({error}); is the file "
                "complete?"
            ) from error
        if self._lookup is not None:
            rgba = self._lookup[:, pixels[0]]
            return rgba[:3], valid & (rgba[3] > 0)
        return (pixels if len(pixels) == 3 else np.repeat(pixels, 3, axis=0)), valid

    def close(self) -> None:
        """See ``Picture``."""
        self._dataset.close()


_USED = ("red", "green", "blue", "alpha")


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
        rasterio = rasterio_for("")
        with _open(rasterio, path) as dataset:
            return not dataset.transform.is_identity or dataset.nodata is not None
    except (ImportError, BadFileError):
        return False


def _open(rasterio: ModuleType, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(path)
    except OSError as error:
        raise BadFileError(f"{path}: the file cannot be read ({error})") from error


def _palette(colors: dict[int, tuple[int, int, int, int]]) -> np.ndarray:
    """Colour table uint8 [4, 256]: red, green, blue, alpha; unlisted indices are transparent."""
    table = np.zeros((4, 256), dtype=np.uint8)
    for index, color in colors.items():
        table[:, index] = color
    return table


def _opaque(path: Path) -> np.ndarray | None:
    """Pixels of a photo that are not fully transparent, upright; None if it has none."""
    with Image.open(path) as image:
        if not image.has_transparency_data:
            return None
        alpha = image.convert("RGBA").getchannel("A")
        # Of all EXIF tags only this one, because exif_transpose fails on odd ones.
        alpha.getexif()[_EXIF_ORIENTATION] = image.getexif().get(_EXIF_ORIENTATION, 1)
    return np.asarray(ImageOps.exif_transpose(alpha)) > 0
