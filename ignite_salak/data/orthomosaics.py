"""GeoTIFF orthomosaics and their masks, read by strips of rows, whatever their size.

Needs the extra ``geo`` (rasterio).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.data.decoding import BadFileError, MaskReader

__all__ = ["MaskTable", "OrthoImage", "OrthoMask", "same_ground"]

_CACHE_BYTES = 256 * 2**20
_STRIP_ROWS = 256
_MAX_VALUES = 65536
_INDEX_TYPES = ("uint8", "int8", "uint16", "int16", "int32")
_MAX_OFFSET = 0.5  # pixels
_GEO_HINT = 'needs rasterio: pip install "ignite-salak[geo]"'


class _Ortho:
    """An open raster; to be closed, and used by one thread.

    Attributes:
        path: the file.
        height: rows.
        width: columns.
        crs: coordinate system, None if there is none.
        transform: from pixels to coordinates.
        nodata: value of pixels without content, None if there is none.
    """

    def __init__(self, path: Path) -> None:
        rasterio = _rasterio(path)
        self.path = path
        try:
            self._dataset = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise BadFileError(f"{path}: the file cannot be opened ({error})") from error
        self._rasterio = rasterio
        self.height, self.width = self._dataset.shape
        self.crs, self.transform = self._dataset.crs, self._dataset.transform
        self.nodata = self._dataset.nodata
        self._bands = self._choose_bands([kind.name for kind in self._dataset.colorinterp])

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

    def _values(self, top: int, bottom: int) -> np.ndarray:
        """The chosen bands, [B, bottom - top, W]."""
        return self._guarded(self._dataset.read, top, bottom, indexes=self._bands)

    def _guarded(self, read: Any, top: int, bottom: int, **options: Any) -> np.ndarray:
        window = self._rasterio.windows.Window(0, top, self.width, bottom - top)
        try:
            with self._rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):  # GDAL asks at the first read
                return read(window=window, **options)
        except self._rasterio.errors.RasterioError as error:
            raise BadFileError(f"{self.path}: the file cannot be decoded ({error})") from error

    def _choose_bands(self, kinds: list[str]) -> list[int]:
        if {"red", "green", "blue"} <= set(kinds):
            return [1 + kinds.index(color) for color in ("red", "green", "blue")]
        bands = [1 + band for band, kind in enumerate(kinds) if kind != "alpha"]
        if len(bands) in (1, 3):
            return bands
        self.close()
        raise BadFileError(
            f"{self.path}: {len(kinds)} bands ({', '.join(kinds)}), none of them marked as red, "
            "green and blue; keep three, for example by gdal_translate -b 1 -b 2 -b 3"
        )


class OrthoImage(_Ortho):
    """An orthomosaic with 8 bits a band: RGB, RGBA, one band, or a palette."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        kinds = set(self._dataset.dtypes)
        if kinds != {"uint8"}:
            self.close()
            raise BadFileError(
                f"{path}: {', '.join(sorted(kinds))} pixels; convert the image to 8-bit RGB, for "
                "example by gdal_translate -ot Byte -scale"
            )
        self._palette = _palette(self._dataset)

    def read(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes some rows.

        Returns:
            uint8 [bottom - top, W, 3], RGB, black where there is no content; and where there is
            content, bool [bottom - top, W].

        Raises:
            BadFileError: the file is damaged.
        """
        valid = self.valid(top, bottom)
        bands = self._values(top, bottom)
        if self._palette is not None:
            pixels = self._palette[bands[0]]
        elif len(bands) == 1:
            pixels = np.repeat(bands[0][..., None], 3, axis=2)
        else:
            pixels = np.ascontiguousarray(bands.transpose(1, 2, 0))
        pixels[~valid] = 0
        return pixels, valid


@dataclass(frozen=True)
class MaskTable:
    """What the values of one mask mean.

    Attributes:
        codes: the values that occur, ascending, int64 [K]; a colour is
            red << 16 | green << 8 | blue.
        labels: class index or 255 of each, uint8 [K].
        counts: pixels of each, int64 [K].
        unlisted: pixels of every colour that the class list lacks.
    """

    codes: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    unlisted: Counter[tuple[int, int, int]]


class OrthoMask(_Ortho):
    """The mask of an orthomosaic: class indices in one band, a palette, or RGB colours."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        kind = self._dataset.dtypes[self._bands[0] - 1]
        if kind not in (("uint8",) if len(self._bands) == 3 else _INDEX_TYPES):
            self.close()
            raise BadFileError(
                f"{path}: a mask with {kind} pixels; expected 8-bit RGB colours or class indices"
            )

    def in_colors(self) -> bool:
        """Whether some pixel's three channels differ."""
        return len(self._bands) == 3 and any(
            bool(((bands[0] != bands[1]) | (bands[0] != bands[2])).any())
            for bands in (self._values(top, bottom) for top, bottom in self.strips())
        )

    def study(self, reader: MaskReader, image: OrthoImage | None = None) -> MaskTable:
        """Reads the whole mask and decides what its values mean.

        Args:
            reader: how masks are read.
            image: its orthomosaic, whose pixels without content do not count.

        Raises:
            BadFileError: the file is damaged, or a value is neither a class nor 255.
        """
        codes, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        for top, bottom in self.strips():
            valid = self.valid(top, bottom)
            if image is not None:
                valid &= image.valid(top, bottom)
            codes, counts = _tally(self._codes(top, bottom)[valid], codes, counts)
            if len(codes) > _MAX_VALUES:
                raise BadFileError(f"{self.path}: over {_MAX_VALUES:,} different values: no mask")
        if not len(codes):
            return MaskTable(codes, np.empty(0, dtype=np.uint8), counts, Counter())
        labels, found = reader.decode(self._picture(codes), self.path)
        place = {int(code): int(count) for code, count in zip(codes, counts, strict=True)}
        unlisted = {(r, g, b): place[r << 16 | g << 8 | b] for r, g, b in found}
        return MaskTable(codes, labels[0], counts, Counter(unlisted))

    def read(self, top: int, bottom: int, table: MaskTable) -> np.ndarray:
        """Decodes some rows.

        Args:
            top: first row.
            bottom: the row behind the last.
            table: of this mask.

        Returns:
            Class indices uint8 [bottom - top, W], 255 where nothing is known.
        """
        valid = self.valid(top, bottom)
        if not len(table.codes):
            return np.full(valid.shape, IGNORE_INDEX, dtype=np.uint8)
        codes = self._codes(top, bottom)
        place = np.searchsorted(table.codes, codes).clip(max=len(table.codes) - 1)
        known = valid & (table.codes[place] == codes)
        return np.where(known, table.labels[place], IGNORE_INDEX).astype(np.uint8)

    def _codes(self, top: int, bottom: int) -> np.ndarray:
        bands = self._values(top, bottom)
        if len(bands) == 1:
            return bands[0]
        red, green, blue = bands.astype(np.int32)
        return red << 16 | green << 8 | blue

    def _picture(self, codes: np.ndarray) -> Image.Image:
        """One pixel of every value, as Pillow would have opened the file."""
        if len(self._bands) == 3:
            colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
            return Image.fromarray(colors[None].astype(np.uint8))
        if self._dataset.dtypes[0] != "uint8":
            return Image.fromarray(codes[None].astype(np.int32))
        picture = Image.fromarray(codes[None].astype(np.uint8))
        palette = _palette(self._dataset)
        if palette is not None:
            picture.putpalette(palette.tobytes())
        return picture


def same_ground(image: _Ortho, mask: _Ortho) -> bool:
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


def _corners(raster: _Ortho) -> list[float]:
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


def _rasterio(path: Path) -> ModuleType:
    try:
        import rasterio
        import rasterio.windows
    except ImportError as error:
        raise ImportError(f"{path} is georeferenced or very large, which {_GEO_HINT}") from error
    return rasterio


def _palette(dataset: Any) -> np.ndarray | None:
    """uint8 [256, 3], or None where the first band has none."""
    if dataset.colorinterp[0].name != "palette":
        return None
    palette = np.zeros((256, 3), dtype=np.uint8)
    for value, color in dataset.colormap(1).items():
        palette[value] = color[:3]
    return palette


def _tally(
    values: np.ndarray, codes: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds values to a table of ascending codes and their counts; much faster than sorting all."""
    if len(codes):
        place = np.searchsorted(codes, values).clip(max=len(codes) - 1)
        known = codes[place] == values
        counts = counts + np.bincount(place[known], minlength=len(codes))
        values = values[~known]
    if not len(values):
        return codes, counts
    new, numbers = np.unique(values, return_counts=True)
    codes, counts = np.concatenate([codes, new]), np.concatenate([counts, numbers])
    order = np.argsort(codes)
    return codes[order], counts[order]
