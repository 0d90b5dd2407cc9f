"""Regions as polygons."""

import json
import sys

import numpy as np
import pytest

from ignite_salak.inference.polygons import check_polygon_format, write_polygons

rasterio = pytest.importorskip("rasterio")

LABELS = np.zeros((40, 60), np.uint8)
LABELS[10:30, 10:30] = 1
LABELS[15:20, 15:20] = 2  # a hole in class 1, filled by class 2
LABELS[2, 2] = 2
LABELS[35:, 50:] = 255
LABELS[20, 40] = 255


@pytest.fixture
def raster(write_raster, utm):
    """A class raster with a speck of one pixel, a hole and two places of nodata."""
    return write_raster("a_classes.tif", LABELS[None], nodata=255, **utm)


def read(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    return content["features"]


def signed_area(ring):
    x, y = np.asarray(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_geojson_is_in_degrees_with_names_and_hectares(raster, tmp_path, classes):
    assert write_polygons(raster, tmp_path / "a.geojson", classes) == 4
    found = read(tmp_path / "a.geojson")
    by_index = sorted(feature["properties"]["index"] for feature in found)
    assert by_index == [0, 1, 2, 2]
    hectares = dict.fromkeys(range(3), 0.0)
    for feature in found:
        assert feature["properties"]["class"] == classes.names[feature["properties"]["index"]]
        hectares[feature["properties"]["index"]] += feature["properties"]["hectares"]
        for number, ring in enumerate(feature["geometry"]["coordinates"]):
            assert ring[0] == ring[-1]
            assert all(110.3 < x < 110.4 and -7.7 < y < -7.5 for x, y in ring)
            moved = np.asarray(ring) - ring[0]
            assert (signed_area(moved) > 0) == (number == 0)
    pixels = np.bincount(LABELS.ravel())[:3]
    assert list(hectares.values()) == pytest.approx(pixels * 0.01 / 10_000, rel=1e-2, abs=2e-6)


def test_small_regions_go_to_their_neighbour_and_nodata_stays(raster, tmp_path, classes):
    assert write_polygons(raster, tmp_path / "a.geojson", classes, min_pixels=10) == 3
    assert write_polygons(raster, tmp_path / "b.geojson", classes, min_pixels=26) == 2
    [big] = [f for f in read(tmp_path / "b.geojson") if f["properties"]["index"] == 0]
    # Holes: the class in the middle, and the pixel of nodata, small as it is.
    assert len(big["geometry"]["coordinates"]) == 3
    assert sum(f["properties"]["hectares"] for f in read(tmp_path / "b.geojson")) == pytest.approx(
        (LABELS != 255).sum() * 0.01 / 10_000, rel=2e-3, abs=2e-6
    )
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a_classes.tif", "a.geojson", "b.geojson"}


def test_a_geopackage_keeps_the_crs(raster, tmp_path, classes):
    fiona = pytest.importorskip("fiona")
    assert write_polygons(raster, tmp_path / "a.gpkg", classes) == 4
    with fiona.open(tmp_path / "a.gpkg") as layer:
        assert layer.crs.to_epsg() == 32749
        assert sorted(feature["properties"]["index"] for feature in layer) == [0, 1, 2, 2]
        assert layer.bounds == pytest.approx((430_000, 9_159_996, 430_006, 9_160_000))
    write_polygons(raster, tmp_path / "a.gpkg", classes, min_pixels=10)
    with fiona.open(tmp_path / "a.gpkg") as layer:
        assert len(layer) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"a_classes.tif", "a.gpkg"}


def test_a_raster_without_crs_is_refused(write_raster, tmp_path, classes):
    path = write_raster("x.tif", LABELS[None], nodata=255)
    with pytest.raises(ValueError, match=r"x.tif: no polygons, because it has no CRS"):
        write_polygons(path, tmp_path / "a.geojson", classes)


def test_formats_and_missing_packages_are_refused_beforehand(monkeypatch):
    with pytest.raises(ValueError, match="'shp' is none of geojson, gpkg"):
        check_polygon_format("shp")
    monkeypatch.setitem(sys.modules, "fiona", None)
    check_polygon_format("geojson")
    with pytest.raises(ImportError, match="pip install fiona"):
        check_polygon_format("gpkg")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match="--polygons geojson needs rasterio: pip install"):
        check_polygon_format("geojson")
