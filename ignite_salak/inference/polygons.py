"""Class raster -> polygons of its regions, as GeoJSON or GeoPackage, small regions sieved.

The raster is held in memory, with two bytes a pixel, and so are the polygons: what a region is, no
part of the raster can tell.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.files import write_whole
from ignite_salak.inference.rasters import rasterio_for

__all__ = ["POLYGON_FORMATS", "check_polygon_format", "write_polygons"]

POLYGON_FORMATS = ("geojson", "gpkg")

_WGS84 = "EPSG:4326"
_DIGITS = 8  # of a degree: 1 mm

Feature = tuple[int, dict[str, Any], float]
"""Class index, GeoJSON geometry, hectares."""


def check_polygon_format(kind: str) -> None:
    """Refuses a format before the work is done.

    Raises:
        ValueError: it is not in ``POLYGON_FORMATS``.
        ImportError: the package that it needs is not installed.
    """
    if kind not in POLYGON_FORMATS:
        raise ValueError(f"--polygons {kind!r} is none of {', '.join(POLYGON_FORMATS)}")
    rasterio_for(f"--polygons {kind}")
    if kind == "gpkg":
        _fiona()


def write_polygons(raster: Path, path: Path, classes: ClassMap, *, min_pixels: int = 0) -> int:
    """Writes the regions of a class raster with class index, class name and hectares each.

    Regions of fewer than ``min_pixels`` pixels are first given to their largest neighbour (GDAL's
    sieve); pixels are neighbours by their sides. Nodata stays nodata. GeoJSON is in longitude and
    latitude of WGS 84, as RFC 7946 wants it; a GeoPackage keeps the CRS.

    Args:
        raster: class raster of ``GeoTiffMap``, with CRS and transform.
        path: the file, ``.geojson`` or ``.gpkg``.
        classes: the class list.
        min_pixels: see above.

    Returns:
        Number of polygons.

    Raises:
        ImportError: rasterio, or fiona for a GeoPackage, is not installed.
        ValueError: the suffix is neither, or the raster has no CRS.
        OSError: the file cannot be written.
    """
    rasterio = rasterio_for("polygons")
    check_polygon_format(path.suffix[1:])
    with rasterio.open(raster) as dataset:
        if dataset.crs is None:
            raise ValueError(f"{raster}: no polygons, because it has no CRS")
        if path.suffix == ".gpkg":
            return _write_gpkg(_regions(dataset, min_pixels, dataset.crs), path, dataset, classes)
        return _write_geojson(_regions(dataset, min_pixels, _WGS84), path, classes)


def _regions(dataset: Any, min_pixels: int, crs: Any) -> Iterator[Feature]:
    """Yields the regions in a CRS, with their areas."""
    from rasterio.features import shapes, sieve
    from rasterio.warp import transform_geom

    labels = dataset.read(1)
    valid = (labels != IGNORE_INDEX).view(np.uint8)
    if min_pixels > 1:
        labels = None  # so that there are two arrays at once, not three
        labels = sieve(dataset, min_pixels, mask=valid)

    middle = dataset.xy(dataset.height // 2, dataset.width // 2)
    center = transform_geom(dataset.crs, _WGS84, {"type": "Point", "coordinates": middle})
    longitude, latitude = center["coordinates"][:2]
    equal = f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m"
    for geometry, value in shapes(labels, mask=valid, transform=dataset.transform):
        area = _area(transform_geom(dataset.crs, equal, geometry)) / 10_000
        if crs != dataset.crs:
            geometry = transform_geom(dataset.crs, crs, geometry, precision=_DIGITS)
        yield int(value), geometry, area


def _area(geometry: dict[str, Any]) -> float:
    """Area of a polygon: its outer ring less its holes."""
    outer, *holes = (abs(_signed_area(ring)) for ring in geometry["coordinates"])
    return outer - sum(holes)


def _signed_area(ring: list[tuple[float, float]]) -> float:
    """Shoelace formula; positive if counterclockwise."""
    x0, y0 = ring[0]  # sums of small numbers
    return (
        math.fsum(
            (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            for (x1, y1), (x2, y2) in itertools.pairwise(ring)
        )
        / 2
    )


def _right_handed(geometry: dict[str, Any]) -> dict[str, Any]:
    """Turns the outer ring counterclockwise and the holes clockwise, as RFC 7946 wants them."""
    rings = [
        ring if (_signed_area(ring) > 0) == (number == 0) else ring[::-1]
        for number, ring in enumerate(geometry["coordinates"])
    ]
    return {"type": "Polygon", "coordinates": rings}


def _properties(index: int, hectares: float, classes: ClassMap) -> dict[str, Any]:
    return {"index": index, "class": classes.names[index], "hectares": round(hectares, 6)}


def _write_geojson(regions: Iterator[Feature], path: Path, classes: ClassMap) -> int:
    count = 0

    def write(file: Any) -> None:
        nonlocal count
        file.write(b'{"type": "FeatureCollection", "features": [')
        for index, geometry, hectares in regions:
            properties = _properties(index, hectares, classes)
            shape = {"type": "Feature", "properties": properties}
            text = json.dumps({**shape, "geometry": _right_handed(geometry)}, ensure_ascii=False)
            file.write((",\n" if count else "\n").encode() + text.encode("utf-8"))
            count += 1
        file.write(b"\n]}\n")

    write_whole(path, write)
    return count


def _write_gpkg(regions: Iterator[Feature], path: Path, dataset: Any, classes: ClassMap) -> int:
    fiona = _fiona()
    partial = path.with_name(f"{path.stem}.partial.gpkg")
    partial.unlink(missing_ok=True)
    schema = {
        "geometry": "Polygon",
        "properties": {"index": "int", "class": "str", "hectares": "float"},
    }
    count = 0
    try:
        with fiona.open(
            partial,
            "w",
            driver="GPKG",
            layer="classes",
            crs_wkt=dataset.crs.to_wkt(),
            schema=schema,
        ) as layer:
            for index, geometry, hectares in regions:
                properties = _properties(index, hectares, classes)
                layer.write({"geometry": geometry, "properties": properties})
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _fiona() -> Any:
    try:
        import fiona
    except ImportError as error:
        raise ImportError(
            "--polygons gpkg needs fiona: pip install fiona (or take --polygons geojson)"
        ) from error
    return fiona
