"""GeoTIFF orthomosaics, read by strips of rows, whatever their size.

Needs the extra ``geo`` (rasterio). Training and the map both read through here, so that they see
the same pixels.
"""

from __future__ import annotations

import abc
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ignite_salak.data.decoding import BadFileError

__all__ = ["Ortho", "OrthoImage", "open_raster", "rasterio_for", "same_ground"]

_RGB = ("red", "green", "blue")
_UNMARKED = ("gray", "undefined")  # what GDAL says of bands whose colour the file does not tell
_CACHE_BYTES = 128 * 1024**2  # a row of 512-pixel tiles of 60,000 RGB pixels is 92 MB
_STRIP_ROWS = 256
_MAX_OFFSET = 0.5  # pixels
_PURPOSE = "a GeoTIFF or very large picture"
_OPENING = threading.Lock()  # warnings.catch_warnings is for one thread


def rasterio_for(purpose: str) -> ModuleType:
    """Imports rasterio, which is optional.

    Raises:
        ImportError: it is not installed; the message names the purpose and the remedy.
    """
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise ImportError(f'{purpose} needs rasterio: pip install "ignite-salak[geo]"') from error
    return rasterio


def open_raster(path: Path) -> Any:
    """Opens any file that GDAL reads; a missing georeference is nothing to warn of.

    Returns:
        Dataset of rasterio, to be closed.

    Raises:
        ImportError: rasterio is not installed.
        BadFileError: the file is missing, damaged, or no raster.
    """
    rasterio = rasterio_for(f"{path}: {_PURPOSE}")
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(path)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise BadFileError(f"{path}: the file cannot be opened ({error})") from error


class Ortho(abc.ABC):
    """An open raster; to be closed, and used by one thread.

    Args:
        path: the file.
        bands: numbers of the red, green and blue band, from 1; None finds them.

    Attributes:
        path: the file.
        height: rows.
        width: columns.
        crs: coordinate system, None if there is none.
        transform: from pixels to coordinates.
        gcps: ground control points and their coordinate system, or an empty list and None.
        nodata: value of pixels without content, None if there is none.
    """

    _other_remedy = ""

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        self.path = path
        self._dataset = open_raster(path)
        try:
            self.height, self.width = self._dataset.shape
            self.crs, self.transform = self._dataset.crs, self._dataset.transform
            self.gcps = self._dataset.gcps
            self.nodata = self._dataset.nodata
            self._kinds = [kind.name for kind in self._dataset.colorinterp]
            self._bands = self._choose_bands() if bands is None else self._check_bands(bands)
            self._dtypes = sorted({self._dataset.dtypes[band - 1] for band in self._bands})
            self._palette = self._read_palette()
            self._check_depth()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._dataset.close()

    def valid(self, top: int, bottom: int) -> np.ndarray:
        """Returns which pixels of some rows have content: not nodata, not transparent.

        Returns:
            Bool [bottom - top, W].
        """
        return self._guarded(self._dataset.dataset_mask, top, bottom) > 0

    def strips(self) -> Iterator[tuple[int, int]]:
        """Yields the first row and the row behind the last of strips that fit into memory."""
        for top in range(0, self.height, _STRIP_ROWS):
            yield top, min(self.height, top + _STRIP_ROWS)

    @abc.abstractmethod
    def _check_depth(self) -> None:
        """Raises ``BadFileError`` if the chosen bands have the wrong type."""

    def _values(self, top: int, bottom: int) -> np.ndarray:
        """The chosen bands, [B, bottom - top, W]."""
        return self._guarded(self._dataset.read, top, bottom, indexes=self._bands)

    def _guarded(self, read: Any, top: int, bottom: int, **options: Any) -> np.ndarray:
        rasterio = rasterio_for(f"{self.path}: {_PURPOSE}")
        window = rasterio.windows.Window(0, top, self.width, bottom - top)
        try:
            # GDAL settles the size of its cache, by default 5 % of the memory, at the first read.
            with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
                return read(window=window, **options)
        except (OSError, rasterio.errors.RasterioError) as error:
            raise BadFileError(
                f"{self.path}: rows {top} to {bottom} cannot be decoded ({error}); is the file "
                "complete?"
            ) from error

    def _choose_bands(self) -> list[int]:
        """Numbers of red, green and blue, or of a single band."""
        if set(_RGB) <= set(self._kinds):
            return [1 + self._kinds.index(color) for color in _RGB]
        bands = [1 + band for band, kind in enumerate(self._kinds) if kind != "alpha"]
        if len(bands) == 1:
            return bands
        if len(bands) == 3 and all(
            self._kinds[band - 1] in (color, *_UNMARKED)
            for band, color in zip(bands, _RGB, strict=True)
        ):
            return bands
        raise BadFileError(
            f"{self.path}: {len(self._kinds)} bands ({', '.join(self._kinds)}): which are red, "
            "green and blue? Keep these three, for example by gdal_translate -b 1 -b 2 -b 3 "
            f"-colorinterp red,green,blue{self._other_remedy}"
        )

    def _check_bands(self, bands: Sequence[int]) -> list[int]:
        if not all(1 <= band <= self._dataset.count for band in bands):
            raise BadFileError(
                f"{self.path}: --bands {' '.join(map(str, bands))}, but it has "
                f"{self._dataset.count} band(s), counted from 1"
            )
        return list(bands)

    def _read_palette(self) -> np.ndarray | None:
        """Colours and alpha of a palette, uint8 [256, 4]; unlisted values are transparent."""
        band = self._bands[0]
        if len(self._bands) > 1 or self._kinds[band - 1] != "palette" or self._dtypes != ["uint8"]:
            return None
        palette = np.zeros((256, 4), dtype=np.uint8)
        for value, color in self._dataset.colormap(band).items():
            palette[value] = color
        return palette


class OrthoImage(Ortho):
    """An orthomosaic, or any other picture that GDAL reads, with 8 bits a channel.

    Red, green and blue are found by what the file says of its bands; three bands of which it says
    nothing are red, green and blue, a single one stands for all three, and a palette is expanded.
    Pixels have content where the file's mask, alpha band, nodata value and palette say so.

    Args:
        path: the file.
        bands: numbers of the red, green and blue band, from 1; None finds them.

    Attributes:
        notes: what a user should know about how the bands are read.

    Raises:
        ImportError: rasterio is not installed.
        BadFileError: the file is no raster, has not 8 bits a channel, or bands of which it does not
            say which are red, green and blue.
    """

    _other_remedy = "; or, to predict, name them by --bands 1 2 3"

    def __init__(self, path: Path, bands: Sequence[int] | None = None) -> None:
        super().__init__(path, bands)
        self.notes = [] if bands is not None else self._describe_bands()

    def valid(self, top: int, bottom: int) -> np.ndarray:
        """See ``Ortho``; transparent colours of a palette have no content either."""
        valid = super().valid(top, bottom)
        if self._palette is None or self._palette[:, 3].all():
            return valid
        return valid & (self._palette[self._values(top, bottom)[0], 3] > 0)

    def read(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes some rows.

        Returns:
            uint8 [bottom - top, W, 3], RGB, black where there is no content; and where there is
            content, bool [bottom - top, W].

        Raises:
            BadFileError: the file is damaged.
        """
        pixels, valid = self.read_planes(top, bottom)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0)), valid

    def read_planes(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Does what ``read`` does, but gives uint8 [3, bottom - top, W]."""
        bands = self._values(top, bottom)
        valid = super().valid(top, bottom)
        if self._palette is not None:
            bands = self._palette.T[:, bands[0]]
            valid &= bands[3] > 0
            bands = bands[:3]
        elif len(bands) == 1:
            bands = np.repeat(bands, 3, axis=0)
        bands *= valid
        return bands, valid

    def _check_depth(self) -> None:
        if self._dtypes != ["uint8"]:
            raise BadFileError(
                f"{self.path}: {' and '.join(self._dtypes)} pixels; convert the image to 8-bit RGB,"
                " alike for training and map, for example by gdal_translate -ot Byte -scale LOW "
                f"HIGH 0 255 {self.path.name} 8bit.tif, with the sensor's lowest and highest value"
            )
        bits = self._dataset.tags(self._bands[0], ns="IMAGE_STRUCTURE").get("NBITS", "8")
        if bits != "8" and self._palette is None:
            raise BadFileError(
                f"{self.path}: {bits} bits a channel; convert the image to 8-bit RGB, for example "
                f"by gdal_translate -co NBITS=8 -scale 0 {2 ** int(bits) - 1} 0 255 "
                f"{self.path.name} 8bit.tif"
            )

    def _describe_bands(self) -> list[str]:
        if self._palette is not None:
            return []
        if len(self._bands) == 1:
            kind = self._kinds[self._bands[0] - 1].replace("gray", "grey")
            return [f"one {kind} band stands for red, green and blue"]
        if not set(_RGB) <= set(self._kinds):
            numbers = ", ".join(map(str, self._bands))
            return [f"bands {numbers} are taken for red, green and blue; the file does not say so"]
        unused = [
            f"{1 + band} ({kind})"
            for band, kind in enumerate(self._kinds)
            if kind not in (*_RGB, "alpha")
        ]
        return [f"red, green and blue are used, not band {', '.join(unused)}"] if unused else []


def same_ground(image: Ortho, mask: Ortho) -> bool:
    """Whether two rasters of one size show the same ground, as far as they say where they lie."""
    if image.crs and mask.crs and image.crs != mask.crs:
        return False
    if image.transform.is_identity or mask.transform.is_identity:
        return True
    pixel = abs(image.transform.determinant) ** 0.5
    return all(
        abs(ours - theirs) < _MAX_OFFSET * pixel
        for ours, theirs in zip(_corners(image), _corners(mask), strict=True)
    )


def _corners(raster: Ortho) -> list[float]:
    """Coordinates of the upper left and the lower right corner."""
    ground = raster.transform
    return [
        value
        for column, row in ((0, 0), (raster.width, raster.height))
        for value in (
            ground.a * column + ground.b * row + ground.c,
            ground.d * column + ground.e * row + ground.f,
        )
    ]
