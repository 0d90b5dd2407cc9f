"""Pixels, hectares, and the table of them."""

import csv
import math

import numpy as np
import pytest

from ignite_salak.inference.areas import AreaCount, AreaTable, ClassAreas, GroundArea
from ignite_salak.inference.maps import Block
from ignite_salak.inference.rasters import open_picture

rasterio = pytest.importorskip("rasterio")

LONGITUDE, LATITUDE = 110.4, -7.6  # the western slope of Merapi


def count(path, labels):
    with open_picture(path) as picture:
        areas = AreaCount(3, picture)
        for top in range(0, len(labels), 512):
            rows = labels[top : top + 512]
            areas.add(Block(top, rows, rows, np.zeros((3, *rows.shape), np.uint8)))
    return areas


@pytest.fixture
def raster(write_raster):
    """Returns a function that writes an RGB raster with a georeference."""

    def write(height, width, **reference):
        pixels = np.ones((3, height, width), np.uint8)
        return write_raster("in.tif", pixels, photometric="RGB", compress="deflate", **reference)

    return write


def test_hectares_of_utm_are_the_pixels_to_a_thousandth(raster, utm):
    labels = np.zeros((700, 1100), np.uint8)
    labels[:, 400:] = 1
    labels[600:] = 255
    found = count(raster(700, 1100, **utm), labels).result()
    assert found.pixels.tolist() == [600 * 400, 600 * 700, 0]
    # UTM's own scale at this place, 38' from the middle of zone 49: 0.99966 in length.
    assert found.hectares[:2] == pytest.approx(
        np.array([600 * 400, 600 * 700]) * 0.01 / 10_000, rel=2e-3
    )
    assert found.hectares[2] == 0
    assert found.shares.tolist() == pytest.approx([4 / 11, 7 / 11, 0])


def ground(crs, transform, height, width):
    area = GroundArea(rasterio.crs.CRS.from_string(crs), transform, height, width)
    per_pixel = area.of_pixels(0, height)
    widths = np.diff([*range(0, width, 512), width])
    return float((per_pixel * widths).sum() * height)


def test_the_same_ground_has_the_same_area_in_every_projection():
    width, height = 0.01, 0.008  # degrees
    box = (LONGITUDE, LATITUDE - height, LONGITUDE + width, LATITUDE)
    found = {}
    for crs in ("EPSG:4326", "EPSG:3857", "EPSG:32749", "EPSG:32748"):
        # Mercator keeps meridians and parallels straight; in UTM the frame is turned a little.
        left, bottom, right, top = rasterio.warp.transform_bounds("EPSG:4326", crs, *box)
        transform = rasterio.transform.from_bounds(left, bottom, right, top, 1000, 800)
        found[crs] = ground(crs, transform, 800, 1000)
    # On the WGS 84 ellipsoid: metres per degree at 7.604 degrees south, by its radii of curvature.
    sine = math.sin(math.radians(LATITUDE - height / 2))
    squeeze = 1 - 0.00669437999014 * sine**2
    east = 6378137 / math.sqrt(squeeze) * math.sqrt(1 - sine**2) * math.radians(width)
    north = 6378137 * (1 - 0.00669437999014) / squeeze**1.5 * math.radians(height)
    assert found["EPSG:4326"] == pytest.approx(east * north, rel=1e-5)
    assert found["EPSG:3857"] == pytest.approx(east * north, rel=1e-5)
    # A metre of Web Mercator is a short one here, and a shorter one farther from the equator.
    left, bottom, right, top = rasterio.warp.transform_bounds("EPSG:4326", "EPSG:3857", *box)
    assert (right - left) * (top - bottom) > 1.01 * east * north


def test_a_turned_raster_has_the_area_of_its_pixels():
    turned = rasterio.Affine.translation(430_000, 9_160_000)
    turned = turned @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(0.5, -0.25)
    assert ground("EPSG:32749", turned, 400, 600) == pytest.approx(400 * 600 / 8, rel=2e-3)


def test_feet_are_not_metres():
    transform = rasterio.transform.from_origin(6_000_000, 2_000_000, 1.0, 1.0)
    found = ground("EPSG:2227", transform, 100, 100)  # California, zone 3, US survey feet
    assert found == pytest.approx(10_000 * (1200 / 3937) ** 2, rel=2e-3)


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({}, "it has no CRS"),
        ({"transform": rasterio.transform.from_origin(5, 5, 0.1, 0.1)}, "it has no CRS"),
        ({"crs": "EPSG:32749"}, "its CRS comes without a transform"),
        (
            {
                "crs": 'LOCAL_CS["site",UNIT["metre",1]]',
                "transform": rasterio.transform.from_origin(5, 5, 0.1, 0.1),
            },
            "its coordinates cannot be brought to the ground",
        ),
        (
            {
                "crs": "EPSG:4326",
                "transform": rasterio.transform.from_origin(430_000, 9_160_000, 0.1, 0.1),
            },
            "its coordinates",
        ),
    ],
)
def test_without_a_usable_georeference_there_are_no_hectares_but_a_reason(
    raster, reference, reason
):
    areas = count(raster(30, 40, nodata=0, **reference), np.zeros((30, 40), np.uint8))
    assert areas.reason.startswith(reason)
    assert areas.result().hectares is None
    assert areas.result().pixels.tolist() == [1200, 0, 0]


def test_areas_add_up_and_one_unknown_area_makes_the_sum_unknown():
    known = ClassAreas(np.array([1, 2]), np.array([0.5, 1.0]))
    assert (known + known).hectares.tolist() == [1.0, 2.0]
    mixed = known + ClassAreas(np.array([10, 20]), None)
    assert mixed.pixels.tolist() == [11, 22]
    assert mixed.hectares is None
    assert ClassAreas(np.zeros(2, np.int64), None).shares.tolist() == [0, 0]


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


FIRST = ClassAreas(np.array([1, 2, 1]), np.array([0.25, 0.5, 0.25]))
SECOND = ClassAreas(np.array([5, 0, 0]), None)


@pytest.fixture
def table(tmp_path, classes):
    """A table with two maps, not finished."""
    table = AreaTable(tmp_path, classes)
    table.begin()
    table.append("a/first", "/photos/first, with comma.tif", FIRST)
    table.append("second", "/photos/zweites ü.png", SECOND)
    return table


def test_the_table_has_a_line_per_map_and_class(table, tmp_path):
    assert not (tmp_path / "areas.csv").exists()
    table.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["areas.csv"]
    found = rows(tmp_path / "areas.csv")
    assert [row["class"] for row in found] == ["background", "water", "road"] * 2
    assert found[1] == {
        "map": "a/first",
        "input": "/photos/first, with comma.tif",
        "index": "1",
        "class": "water",
        "pixels": "2",
        "share": "0.500000",
        "hectares": "0.5000",
    }
    assert [row["hectares"] for row in found[3:]] == ["", "", ""]


def test_a_killed_run_is_continued(table, tmp_path, classes):
    again = AreaTable(tmp_path, classes)
    again.load()
    assert list(again.done) == ["a/first", "second"]
    source, areas = again.done["a/first"]
    assert source == "/photos/first, with comma.tif"
    assert areas.pixels.tolist() == [1, 2, 1]
    assert areas.hectares.tolist() == [0.25, 0.5, 0.25]
    assert again.done["second"][1].hectares is None


@pytest.mark.parametrize("cut", [2, 3, 10, 60])
def test_a_half_written_last_map_is_done_again(table, tmp_path, classes, cut):
    content = table.partial.read_bytes()
    table.partial.write_bytes(content[:-cut])
    again = AreaTable(tmp_path, classes)
    again.load()
    assert list(again.done) == ["a/first"]
    again.begin()
    again.append("second", "x", SECOND)
    again.finish()
    assert len(rows(tmp_path / "areas.csv")) == 6


def test_a_finished_table_is_added_to_and_a_map_made_again_replaced(table, tmp_path, classes):
    table.finish()
    again = AreaTable(tmp_path, classes)
    again.load()
    again.begin()
    again.append("a/first", "new", SECOND)
    again.append("third", "c", FIRST)
    again.finish()
    found = rows(tmp_path / "areas.csv")
    assert [row["map"] for row in found[::3]] == ["a/first", "second", "third"]
    assert found[0]["input"] == "new"
    again.discard()
    assert not list(tmp_path.iterdir())
