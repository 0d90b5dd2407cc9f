"""Pixels and hectares of every class of a map, and the table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ignite_salak.classes import ClassMap
from ignite_salak.files import write_whole
from ignite_salak.inference.maps import BLOCK, Block
from ignite_salak.inference.rasters import Picture, rasterio_for

__all__ = ["AreaCount", "AreaTable", "ClassAreas", "GroundArea"]

_HECTARE = 10_000.0  # square metres


class GroundArea:
    """Square metres on the ground of the pixels of a raster.

    The corners of blocks of pixels are brought into an equal-area projection (Lambert's azimuthal,
    on the WGS 84 ellipsoid, centred on the raster), where the area of a quadrilateral is that on
    the ground: right for metres of Web Mercator, which are short ones, for degrees, and for turned
    rasters. Checked to 0.01 % for pixels of centimetres to metres; a block of 512 pixels should not
    span more than a few degrees.

    Args:
        crs: coordinate reference system of rasterio.
        transform: affine transform from (column, row) to it.
        height: H.
        width: W.

    Raises:
        ValueError: the coordinates cannot be brought to the ground.
    """

    def __init__(self, crs: Any, transform: Any, height: int, width: int) -> None:
        rasterio_for("an area")
        self._crs = crs
        self._transform = transform
        self._width = width
        [longitude], [latitude] = self._project("EPSG:4326", [width / 2], [height / 2])
        self._target = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m"
        self.of_pixels(0, height)

    def of_pixels(self, top: int, rows: int) -> np.ndarray:
        """Returns the mean area of a pixel in every block of 512 columns of some rows.

        Args:
            top: first row.
            rows: number of rows.

        Returns:
            Square metres, float64 [ceil(W / 512)].

        Raises:
            ValueError: the coordinates cannot be brought to the ground.
        """
        edges = np.append(np.arange(0, self._width, BLOCK), self._width).astype(float)
        columns = np.concatenate([edges, edges])
        lines = np.repeat([float(top), float(top + rows)], len(edges))
        x, y = (
            np.reshape(values, (2, -1)) for values in self._project(self._target, columns, lines)
        )
        x_ring = np.stack([x[0, :-1], x[0, 1:], x[1, 1:], x[1, :-1]])
        y_ring = np.stack([y[0, :-1], y[0, 1:], y[1, 1:], y[1, :-1]])
        # The shoelace formula.
        double = x_ring * np.roll(y_ring, -1, axis=0) - np.roll(x_ring, -1, axis=0) * y_ring
        return np.abs(double.sum(axis=0)) / 2 / (rows * np.diff(edges))

    def _project(
        self, target: str, columns: Sequence[float] | np.ndarray, rows: Sequence[float] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        from rasterio.warp import transform

        a, b, c, d, e, f, *_ = self._transform
        xs, ys = (
            a * np.asarray(columns) + b * np.asarray(rows) + c,
            d * np.asarray(columns) + e * np.asarray(rows) + f,
        )
        try:
            found = transform(self._crs, target, xs.tolist(), ys.tolist())
        except Exception as error:  # errors of GDAL have a private type in rasterio
            raise ValueError(f"its coordinates cannot be brought to the ground: {error}") from error
        if not np.isfinite(found[:2]).all():
            raise ValueError("its coordinates lie outside what its CRS can express")
        return np.asarray(found[0]), np.asarray(found[1])


@dataclass(frozen=True)
class ClassAreas:
    """Areas of the classes of one or more maps.

    Attributes:
        pixels: int64 [C].
        hectares: float64 [C], or None where no ground area is known.
    """

    pixels: np.ndarray
    hectares: np.ndarray | None

    @property
    def shares(self) -> np.ndarray:
        """Share of each class of all pixels with image content, float64 [C]; 0 if there is none."""
        return self.pixels / max(1, int(self.pixels.sum()))

    def __add__(self, other: ClassAreas) -> ClassAreas:
        pixels = self.pixels + other.pixels
        if self.hectares is None or other.hectares is None:
            return ClassAreas(pixels, None)
        return ClassAreas(pixels, self.hectares + other.hectares)


class AreaCount:
    """Counts pixels and ground area by class while a map is made.

    Args:
        num_classes: C.
        picture: gives the georeference.

    Attributes:
        reason: why there are no hectares, or None where there are.
    """

    def __init__(self, num_classes: int, picture: Picture) -> None:
        self._pixels = np.zeros(num_classes, dtype=np.int64)
        self._meters = np.zeros(num_classes)
        self._ground: GroundArea | None = None
        self.reason: str | None = None
        if picture.crs is None:
            self.reason = "it has no CRS"
        elif picture.transform is None:
            self.reason = "its CRS comes without a transform"
        else:
            try:
                self._ground = GroundArea(
                    picture.crs, picture.transform, picture.height, picture.width
                )
            except ValueError as error:
                self.reason = str(error)

    def add(self, block: Block) -> None:
        """Counts a block."""
        rows, width = block.classes.shape
        lefts = range(0, width, BLOCK)
        counts = np.stack(
            [
                np.bincount(block.classes[:, left : left + BLOCK].ravel(), minlength=256)
                for left in lefts
            ]
        )[:, : len(self._pixels)]
        self._pixels += counts.sum(axis=0)
        if self._ground is not None:
            self._meters += self._ground.of_pixels(block.top, rows) @ counts

    def result(self) -> ClassAreas:
        """Returns what was counted."""
        known = self._ground is not None
        return ClassAreas(self._pixels.copy(), self._meters / _HECTARE if known else None)


class AreaTable:
    """The file ``areas.csv``: one line per map and class, and the record of what is done.

    Lines are appended to ``areas.partial.csv``, which gets its name by ``finish``; so a killed run
    is continued after the last map whose lines are all there.

    Args:
        folder: where the file lies.
        classes: the class list.

    Attributes:
        done: input and areas of every finished map, by its name.
    """

    HEADER = ("map", "input", "index", "class", "pixels", "share", "hectares")

    def __init__(self, folder: Path, classes: ClassMap) -> None:
        self.path = folder / "areas.csv"
        self.partial = folder / "areas.partial.csv"
        self._classes = classes
        self.done: dict[str, tuple[str, ClassAreas]] = {}

    def load(self) -> None:
        """Reads what earlier runs finished, up to the first damaged line."""
        for path in (self.path, self.partial):
            if path.exists():
                self.done |= dict(self._read(path))

    def discard(self) -> None:
        """Removes what earlier runs wrote."""
        for path in (self.path, self.partial):
            path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Writes the maps in ``done`` to the partial file."""
        self._write(self.partial)

    def append(self, name: str, source: str, areas: ClassAreas) -> None:
        """Adds a finished map; one of the same name is replaced."""
        self.done[name] = (source, areas)
        with self.partial.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._lines(name))

    def finish(self) -> None:
        """Writes the complete file and removes the partial one."""
        self._write(self.path)
        self.partial.unlink(missing_ok=True)

    def _write(self, path: Path) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.HEADER)
        for name in self.done:
            writer.writerows(self._lines(name))
        write_whole(path, lambda file: file.write(text.getvalue().encode("utf-8")))

    def _lines(self, name: str) -> Iterator[tuple[Any, ...]]:
        source, areas = self.done[name]
        for index, label in enumerate(self._classes.names):
            hectares = "" if areas.hectares is None else f"{areas.hectares[index]:.4f}"
            share = f"{areas.shares[index]:.6f}"
            yield name, source, index, label, int(areas.pixels[index]), share, hectares

    def _read(self, path: Path) -> Iterator[tuple[str, tuple[str, ClassAreas]]]:
        text = path.read_text(encoding="utf-8", errors="replace")
        # A killed process may have left half a line, which can look like a whole one.
        rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))[1:]
        size = self._classes.num_classes
        for first in range(0, len(rows), size):
            lines = rows[first : first + size]
            if [line[2:3] for line in lines] != [[str(index)] for index in range(size)]:
                return
            pixels = np.array([int(line[4]) for line in lines], dtype=np.int64)
            measured = [line[6] for line in lines]
            hectares = np.array([float(value) for value in measured]) if all(measured) else None
            yield lines[0][0], (lines[0][1], ClassAreas(pixels, hectares))
