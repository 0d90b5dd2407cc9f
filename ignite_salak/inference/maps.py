"""Probabilities -> class raster and confidence raster, written block by block.

Every file gets its name when it is complete; until then it is called ``<name>.partial.tif``, and a
killed process leaves nothing else behind.
"""

from __future__ import annotations

import abc
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.files import write_whole
from ignite_salak.inference.rasters import GeoRaster, Picture, rasterio_for
from ignite_salak.inference.sliding_window import Band
from ignite_salak.pictures import color_confidence

__all__ = ["BLOCK", "Block", "ByteMap", "GeoTiffMap", "PngMap", "create_map", "in_blocks"]

BLOCK = 512
"""Side of the blocks of a GeoTIFF in pixels, and rows written at once."""

_SLICE = 32
_PERCENT = color_confidence(np.arange(101) / 100)


@dataclass(frozen=True)
class Block:
    """Finished rows of a map.

    Attributes:
        top: number of the first row, a multiple of ``BLOCK``.
        classes: class indices, uint8 [rows, W]; 255 where there is no image content.
        confidence: probability of the class in whole percent, uint8 [rows, W], 0 to 100; 255 where
            there is no image content.
        image: what was predicted, uint8 [3, rows, W].
    """

    top: int
    classes: np.ndarray
    confidence: np.ndarray
    image: np.ndarray

    @classmethod
    def from_band(cls, band: Band) -> Block:
        """Chooses the most probable class of every pixel."""
        classes = np.full(band.valid.shape, IGNORE_INDEX, dtype=np.uint8)
        confidence = classes.copy()
        # In slices, because torch's indices take eight bytes a pixel.
        for first in range(0, len(classes), _SLICE):
            rows = slice(first, first + _SLICE)
            highest, chosen = band.probabilities[:, rows].max(dim=0)
            valid = band.valid[rows]
            classes[rows][valid] = chosen.byte().cpu().numpy()[valid]
            confidence[rows][valid] = highest.mul(100.0).round().byte().cpu().numpy()[valid]
        return cls(band.top, classes, confidence, band.image)


def in_blocks(bands: Iterable[Band], rows: int = BLOCK) -> Iterator[Block]:
    """Turns bands of any height into blocks of ``rows`` rows, the last of what is left."""
    waiting: list[Block] = []
    for band in bands:
        waiting.append(Block.from_band(band))
        while sum(len(block.classes) for block in waiting) >= rows:
            whole = _join(waiting)
            yield _cut(whole, 0, rows)
            waiting = [_cut(whole, rows, None)]
    if waiting and len(_join(waiting).classes):
        yield _join(waiting)


_MAPS = [field.name for field in fields(Block) if field.name != "top"]


def _join(blocks: list[Block]) -> Block:
    maps = (np.concatenate([getattr(block, name) for block in blocks], -2) for name in _MAPS)
    return Block(blocks[0].top, *maps)


def _cut(block: Block, first: int, last: int | None) -> Block:
    return Block(block.top + first, *(getattr(block, name)[..., first:last, :] for name in _MAPS))


class ByteMap(abc.ABC):
    """A raster of one band of bytes that is being written; 255 means nodata.

    A context manager: what was not committed when the block is left is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abc.abstractmethod
    def write(self, top: int, values: np.ndarray) -> None:
        """Writes rows, uint8 [rows, W]; ``top`` is a multiple of ``BLOCK``."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Gives the complete file its name.

        Raises:
            OSError: that is not possible, such as on Windows while a viewer has the old file open.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Removes what was not committed."""

    def __enter__(self) -> ByteMap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


class GeoTiffMap(ByteMap):
    """A tiled, compressed GeoTIFF with the georeference of the picture.

    Args:
        path: the file, ``.tif``; its folder must exist.
        picture: gives size and georeference.
        classes: class list, for colour table and tags ``CLASS_<index>``; None writes grey values.

    Raises:
        ImportError: rasterio is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, picture: Picture, classes: ClassMap | None = None) -> None:
        super().__init__(path)
        rasterio = rasterio_for(f"{path}: a GeoTIFF")
        self.partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._window = rasterio.windows.Window
        self._checksum = 0
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": IGNORE_INDEX}
        profile |= {"height": picture.height, "width": picture.width, "crs": picture.crs}
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
        profile |= {"compress": "deflate", "bigtiff": "IF_SAFER"}
        if classes is not None:
            profile["photometric"] = "palette"
        if picture.transform is not None:
            profile["transform"] = picture.transform
        elif isinstance(picture, GeoRaster) and picture.gcps:
            profile["gcps"] = picture.gcps
        self.partial.unlink(missing_ok=True)  # GDAL refuses to write over a damaged file
        self._dataset = rasterio.open(self.partial, "w", **profile)
        if classes is not None:
            self._dataset.write_colormap(1, _color_table(classes))
            names = {f"CLASS_{index}": name for index, name in enumerate(classes.names)}
            self._dataset.update_tags(**names)

    def write(self, top: int, values: np.ndarray) -> None:
        """See ``ByteMap``."""
        rows, width = values.shape
        self._checksum = zlib.crc32(values.tobytes(), self._checksum)
        try:
            self._dataset.write(values, 1, window=self._window(0, top, width, rows))
        except OSError as error:
            raise self._not_written() from error

    def commit(self) -> None:
        """See ``ByteMap``."""
        self._dataset.close()
        if self._read_checksum() != self._checksum:
            raise self._not_written()
        self.partial.replace(self.path)

    def _read_checksum(self) -> int | None:
        """Checksum of the closed file: GDAL is silent about what it fails to write when closing."""
        checksum = 0
        try:
            with rasterio_for("a GeoTIFF").open(self.partial) as dataset:
                for top in range(0, dataset.height, BLOCK):
                    rows = min(BLOCK, dataset.height - top)
                    window = self._window(0, top, dataset.width, rows)
                    checksum = zlib.crc32(dataset.read(1, window=window).tobytes(), checksum)
        except OSError:
            return None
        return checksum

    def _not_written(self) -> OSError:
        free = shutil.disk_usage(self.partial.parent).free
        return OSError(f"{self.path} cannot be written; {free / 1e6:,.0f} MB of the disk are free")

    def discard(self) -> None:
        """See ``ByteMap``."""
        self._dataset.close()
        self.partial.unlink(missing_ok=True)


class PngMap(ByteMap):
    """A PNG, held in memory until it is complete.

    Args:
        path: the file, ``.png``; its folder must exist.
        picture: gives the size.
        classes: class list, for the palette, in which 255 is transparent; None takes the values for
            percent and shows 0 to 100 from dark to bright (viridis).
    """

    def __init__(self, path: Path, picture: Picture, classes: ClassMap | None = None) -> None:
        super().__init__(path)
        self._values = np.full((picture.height, picture.width), IGNORE_INDEX, dtype=np.uint8)
        shown = _PERCENT if classes is None else classes.palette
        self._palette = np.zeros((256, 3), dtype=np.uint8)
        self._palette[: len(shown)] = shown

    def write(self, top: int, values: np.ndarray) -> None:
        """See ``ByteMap``."""
        self._values[top : top + len(values)] = values

    def commit(self) -> None:
        """See ``ByteMap``."""
        image = Image.fromarray(self._values)
        image.putpalette(self._palette.ravel().tolist())
        write_whole(
            self.path, lambda file: image.save(file, format="PNG", transparency=IGNORE_INDEX)
        )

    def discard(self) -> None:
        """See ``ByteMap``."""


def _color_table(classes: ClassMap) -> dict[int, tuple[int, int, int, int]]:
    colors = {index: (*color, 255) for index, color in enumerate(classes.colors)}
    return {**colors, IGNORE_INDEX: (0, 0, 0, 0)}


def create_map(stem: Path, picture: Picture, classes: ClassMap | None = None) -> ByteMap:
    """Returns a ``GeoTiffMap`` for a ``GeoRaster`` and a ``PngMap`` for a ``Photo``.

    Args:
        stem: the file without suffix.
        picture: what is mapped.
        classes: see ``GeoTiffMap``.
    """
    kind, suffix = (GeoTiffMap, ".tif") if isinstance(picture, GeoRaster) else (PngMap, ".png")
    return kind(stem.with_name(stem.name + suffix), picture, classes)
