"""One input -> all files that are made of it: maps, preview, style and polygons."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from experiments.notes import Notes
from ignite_salak.classes import ClassMap
from ignite_salak.inference.areas import AreaCount, ClassAreas
from ignite_salak.inference.maps import create_map, in_blocks
from ignite_salak.inference.polygons import write_polygons
from ignite_salak.inference.previews import Preview
from ignite_salak.inference.rasters import GeoRaster, Picture, open_picture
from ignite_salak.inference.sliding_window import Band, SlidingWindow
from ignite_salak.inference.styles import write_qgis_style

__all__ = ["MapFiles", "ResultOptions", "has_map"]

_MUCH_BLACK = 0.01


@dataclass
class ResultOptions:
    """Results."""

    confidence: bool = False
    """Write a raster of the probability of the chosen class, in percent."""
    overlay: bool = True
    """Write a preview of up to 2048 pixels, the classes painted over the photo."""
    polygons: Literal["geojson", "gpkg"] | None = None
    """Write the regions of inputs with a CRS as polygons, which takes memory (gpkg needs fiona)."""
    min_region: int = 100
    """Regions of fewer pixels are given to their neighbours in the polygons."""
    black_is_nodata: bool = False
    """Take pure black pixels for "no image content"."""
    bands: tuple[int, int, int] | None = None
    """Numbers of the red, green and blue band of TIFFs that do not say so, from 1."""


def has_map(stem: Path) -> bool:
    """Returns whether the classes of an input are mapped.

    Args:
        stem: path of the files of the input, up to what tells them apart.
    """
    return any(_file(stem, f"classes.{suffix}").exists() for suffix in ("tif", "png"))


@dataclass(frozen=True)
class MapFiles:
    """Makes the files of one input after the other.

    Attributes:
        folder: where the files go.
        classes: the class list.
        window: makes probabilities of rasters.
        options: which files, and how inputs are read.
        notes: takes what a user should know.
    """

    folder: Path
    classes: ClassMap
    window: SlidingWindow
    options: ResultOptions
    notes: Notes

    def open(self, path: Path) -> Picture:
        """Opens an input; see ``open_picture``."""
        options = self.options
        return open_picture(path, black_is_nodata=options.black_is_nodata, bands=options.bands)

    def make(self, picture: Picture, name: str) -> ClassAreas:
        """Writes all files of one input, and returns its areas."""
        stem = self.folder / name
        areas = self._count(picture, name)
        _remove_earlier(stem)
        preview = Preview(picture.height, picture.width)
        with ExitStack() as stack:
            path = _file(stem, "classes")
            class_map = stack.enter_context(create_map(path, picture, self.classes))
            confidence_map = None
            if self.options.confidence:
                path = _file(stem, "confidence")
                confidence_map = stack.enter_context(create_map(path, picture))
            for block in in_blocks(self._bands(picture, name)):
                class_map.write(block.top, block.classes)
                if confidence_map is not None:
                    confidence_map.write(block.top, block.confidence)
                areas.add(block)
                preview.add(block)
            if confidence_map is not None:
                confidence_map.commit()
            class_map.commit()
        if self.options.overlay:
            preview.save(_file(stem, "overlay.jpg"), self.classes)
        if isinstance(picture, GeoRaster):
            write_qgis_style(_file(stem, "classes.qml"), self.classes)
        if self.options.polygons is not None and areas.reason is None:
            path = _file(stem, f"polygons.{self.options.polygons}")
            least = self.options.min_region
            write_polygons(class_map.path, path, self.classes, min_pixels=least)
        self._say_black(picture, name)
        return areas.result()

    def _count(self, picture: Picture, name: str) -> AreaCount:
        for text in picture.notes:
            self.notes.say(name, text)
        areas = AreaCount(self.classes.num_classes, picture)
        if areas.reason is not None:
            polygons = "" if self.options.polygons is None else " and no polygons"
            self.notes.say(name, f"no hectares{polygons}: {areas.reason}")
        return areas

    def _bands(self, picture: Picture, name: str) -> Iterator[Band]:
        rows = self.window.rows(picture.height)
        bands = self.window(picture.read, picture.height, picture.width)
        return iter(tqdm(bands, name, rows, leave=False, unit="row", delay=2.0, disable=None))

    def _say_black(self, picture: Picture, name: str) -> None:
        share = picture.black / (picture.height * picture.width)
        if share > _MUCH_BLACK and not picture.black_is_nodata:
            self.notes.say(
                name,
                f"over {_MUCH_BLACK:.0%} of its pixels are pure black and were mapped all the "
                "same; if there is no image content, take --black-is-nodata",
            )


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}_{ending}")


def _remove_earlier(stem: Path) -> None:
    """Makes the folder, without files of an earlier run."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("classes", "confidence", "overlay", "polygons"):
        for path in stem.parent.glob(f"{glob.escape(stem.name)}_{kind}.*"):
            path.unlink()
