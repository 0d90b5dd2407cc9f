"""GeoTIFFs by strips: nodata stays nodata, memory stays small, odd files are refused by name."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.ortho_masks import OrthoMask
from ignite_salak.data.orthomosaics import OrthoImage, same_ground
from tests.data.made_up import HEIGHT, LABELS, PIXELS, WIDTH

rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")


def name_bands(path, *kinds):
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [rasterio.enums.ColorInterp[kind] for kind in kinds]
    return path


def notes(path, **options):
    with closing(OrthoImage(path, **options)) as image:
        return image.notes


def read(path, top=0, bottom=HEIGHT):
    with closing(OrthoImage(path)) as image:
        return image.read(top, bottom)


def test_rows(geotiff):
    pixels, valid = read(geotiff("a.tif", PIXELS), 100, 180)
    assert pixels.dtype == np.uint8 and valid.all()
    np.testing.assert_array_equal(pixels, PIXELS[100:180])


@pytest.mark.parametrize("nodata", [0, 255, 7])
def test_nodata_is_black(geotiff, nodata):
    stored = PIXELS.copy()
    stored[:50] = nodata
    stored[60, 5] = (nodata, 9, 9)  # one band alone does not make a pixel nodata
    pixels, valid = read(geotiff("a.tif", stored, nodata=nodata))
    assert not valid[:50].any() and valid[50:].all()
    assert not pixels[:50].any()
    np.testing.assert_array_equal(pixels[50:], stored[50:])


def test_transparent_is_black(geotiff):
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, :7] = 0
    alpha[:, 7] = 1
    pixels, valid = read(geotiff("a.tif", np.concatenate([PIXELS, alpha], axis=2)))
    assert not valid[:, :7].any() and valid[:, 7:].all() and not pixels[:, :7].any()
    np.testing.assert_array_equal(pixels[:, 7:], PIXELS[:, 7:])


def test_one_band_is_grey(geotiff):
    pixels, _ = read(geotiff("a.tif", PIXELS[..., 0]))
    np.testing.assert_array_equal(pixels, np.repeat(PIXELS[..., :1], 3, axis=2))


def test_palette(geotiff, classes):
    colors = dict(enumerate(classes.colors))
    pixels, _ = read(geotiff("a.tif", LABELS, colors))
    np.testing.assert_array_equal(pixels, classes.palette[LABELS])


def test_bands_are_taken_by_their_colour(geotiff):
    path = geotiff("a.tif", np.concatenate([PIXELS[..., ::-1], PIXELS[..., :2]], axis=2))
    name_bands(path, "blue", "green", "red", "undefined", "undefined")
    np.testing.assert_array_equal(read(path)[0], PIXELS)
    assert notes(path) == ["red, green and blue are used, not band 4 (undefined), 5 (undefined)"]


def test_three_bands_without_colours_are_taken_in_order_and_said(geotiff):
    path = geotiff("a.tif", PIXELS, photometric="MINISBLACK")
    np.testing.assert_array_equal(read(path)[0], PIXELS)
    assert notes(path) == [
        "bands 1, 2, 3 are taken for red, green and blue; the file does not say so"
    ]


def test_three_bands_whose_colours_contradict_the_order_are_refused(geotiff):
    path = geotiff("a.tif", PIXELS, photometric="MINISBLACK")
    name_bands(path, "blue", "green", "undefined")
    with pytest.raises(BadFileError, match=r"\(blue, green, undefined\): which are red"):
        OrthoImage(path)


def test_bands_can_be_given(geotiff):
    path = geotiff("a.tif", np.concatenate([PIXELS, PIXELS[..., :1]], axis=2))
    with closing(OrthoImage(path, bands=(4, 3, 2))) as image:
        pixels, _ = image.read(0, HEIGHT)
        assert image.notes == []
    np.testing.assert_array_equal(pixels, PIXELS[..., [0, 2, 1]])


def test_transparent_colours_of_a_palette_have_no_content(tmp_path):
    image = Image.fromarray(LABELS)
    image.putpalette([9, 8, 7, 10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=1)
    pixels, valid = read(tmp_path / "a.png", 100, 180)
    colors = np.array([[9, 8, 7], [0, 0, 0], [200, 100, 50]])
    np.testing.assert_array_equal(valid, LABELS[100:180] != 1)
    np.testing.assert_array_equal(pixels, colors[LABELS[100:180]])
    with closing(OrthoImage(tmp_path / "a.png")) as image:
        np.testing.assert_array_equal(image.valid(100, 180), valid)


def test_few_bits_are_read_by_their_palette_or_refused(geotiff, classes):
    path = geotiff("a.tif", LABELS, dict(enumerate(classes.colors)), nbits=4)
    np.testing.assert_array_equal(read(path)[0], classes.palette[LABELS])
    for name, bits in (("grey.tif", 4), ("black.tif", 1)):
        pixels = PIXELS[..., : 1 if bits == 4 else 3] >> (8 - bits)
        with pytest.raises(BadFileError, match=f"{name}: {bits} bits a channel; convert"):
            OrthoImage(geotiff(name, pixels, nbits=bits))


def test_a_missing_georeference_is_nothing_to_warn_of(save, tmp_path, recwarn):
    read(save(tmp_path / "a.png", PIXELS))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (PIXELS.astype(np.uint16), {}, "uint16 pixels; convert the image to 8-bit RGB"),
        (PIXELS.astype(np.float32), {}, "float32 pixels"),
        (np.repeat(PIXELS[..., :1], 4, axis=2), {"photometric": "MINISBLACK"}, "4 bands"),
        (PIXELS[..., :2], {"photometric": "MINISBLACK"}, "2 bands"),
    ],
)
def test_refused_by_name(geotiff, pixels, options, message):
    path = geotiff("a.tif", pixels, **options)
    with pytest.raises(BadFileError, match=message) as caught:
        OrthoImage(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_damaged(geotiff):
    path = geotiff("a.tif", PIXELS, compress="deflate")
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes(8) + content[16:])
    with pytest.raises(BadFileError, match="cannot be") as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_truncated(geotiff):
    path = geotiff("a.tif", PIXELS, compress="deflate")
    path.write_bytes(path.read_bytes()[: PIXELS.size // 2])
    with pytest.raises(BadFileError, match=r"cannot be (opened|decoded)"):
        read(path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"left": 500.2}, True),
        ({"left": 500.3}, False),
        ({"crs": "EPSG:32748"}, False),
        ({"crs": None}, True),
    ],
)
def test_same_ground(geotiff, options, expected):
    image, mask = geotiff("image.tif", PIXELS), geotiff("mask.tif", LABELS, **options)
    with closing(OrthoImage(image)) as ours, closing(OrthoMask(mask)) as theirs:
        assert same_ground(ours, theirs) is expected


def test_without_rasterio_the_error_says_what_to_install(geotiff, monkeypatch):
    path = geotiff("a.tif", PIXELS)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match=r'pip install "ignite-salak\[geo\]"') as caught:
        OrthoImage(path)
    assert str(path) in str(caught.value)


_READ = """
import re, sys
from contextlib import closing
from pathlib import Path
from ignite_salak.data import orthomosaics
orthomosaics._CACHE_BYTES = 16 * 2**20
def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024
with closing(orthomosaics.OrthoImage(Path(sys.argv[1]))) as image:
    image.read(0, 256)
    before = peak()
    for top in range(0, image.height, 256):
        image.read(top, min(image.height, top + 256))
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_memory_does_not_grow_with_the_image(geotiff):
    # 123 megabytes decoded, of which GDAL may keep 16.
    pixels = np.full((4096, 10000, 3), 9, np.uint8)
    path = geotiff("a.tif", pixels, tiled=True, blockxsize=512, blockysize=512, compress="deflate")
    result = subprocess.run(
        [sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 60
