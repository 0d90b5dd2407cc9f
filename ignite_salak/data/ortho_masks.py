"""Masks of orthomosaics, read by strips of rows, whatever their size.

Needs the extra ``geo`` (rasterio).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.orthomosaics import Ortho, OrthoImage

__all__ = ["MaskTable", "OrthoMask"]

_MAX_VALUES = 65536
_INDEX_TYPES = ("uint8", "int8", "uint16", "int16", "int32")


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


class OrthoMask(Ortho):
    """The mask of an orthomosaic: class indices in one band, a palette, or RGB colours."""

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

    def _check_depth(self) -> None:
        known = ("uint8",) if len(self._bands) == 3 else _INDEX_TYPES
        if not set(self._dtypes) <= set(known):
            raise BadFileError(
                f"{self.path}: a mask with {' and '.join(self._dtypes)} pixels; expected 8-bit RGB "
                "colours or class indices"
            )

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
        if self._dtypes != ["uint8"]:
            return Image.fromarray(codes[None].astype(np.int32))
        picture = Image.fromarray(codes[None].astype(np.uint8))
        if self._palette is not None:
            picture.putpalette(self._palette[:, :3].tobytes())
        return picture


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
