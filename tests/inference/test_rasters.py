"""Photos and GeoTIFFs: how each is read, and what is refused."""

import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.sources import ImageSource, read_header
from ignite_salak.inference.rasters import GeoRaster, Photo, open_picture

PIXELS = np.random.default_rng(0).integers(1, 256, (3, 20, 30), dtype=np.uint8)


def whole(path, **options):
    """Pixels, valid pixels, notes."""
    with open_picture(path, **options) as picture:
        parts = [
            picture.read(top, min(7, picture.height - top)) for top in range(0, picture.height, 7)
        ]
        pixels = np.concatenate([part[0] for part in parts], axis=1)
        return pixels, np.concatenate([part[1] for part in parts]), picture


def test_a_photo_is_read_in_rows(tmp_path, save):
    pixels, valid, picture = whole(save(tmp_path / "a.png", PIXELS.transpose(1, 2, 0)))
    assert isinstance(picture, Photo)
    assert (picture.height, picture.width, picture.crs) == (20, 30, None)
    assert np.array_equal(pixels, PIXELS)
    assert valid.all()
    assert pixels.dtype == np.uint8


def test_transparent_pixels_of_a_photo_are_not_valid_and_black(tmp_path, save):
    rgba = np.concatenate([PIXELS, np.full((1, 20, 30), 200, np.uint8)]).transpose(1, 2, 0)
    rgba[:5, :, 3] = 0
    pixels, valid, _ = whole(save(tmp_path / "a.png", rgba))
    assert not valid[:5].any()
    assert valid[5:].all()
    assert (pixels[:, :5] == 0).all()
    assert np.array_equal(pixels[:, 5:], PIXELS[:, 5:])


def test_a_photo_turned_by_exif_is_upright_and_so_is_its_transparency(tmp_path):
    rgba = np.concatenate([PIXELS, np.full((1, 20, 30), 255, np.uint8)]).transpose(1, 2, 0)
    rgba[0, :, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.fromarray(rgba).save(tmp_path / "a.png", exif=exif)
    pixels, valid, _ = whole(tmp_path / "a.png")
    assert pixels.shape == (3, 30, 20)
    assert np.array_equal(~valid, np.tile(np.arange(20) == 19, (30, 1)))
    assert np.array_equal(pixels[:, :, :19], np.rot90(PIXELS, -1, (1, 2))[:, :, :19])


@pytest.mark.parametrize("mode", ["CMYK", "P", "L"])
def test_photos_in_cmyk_palette_and_grey_are_read(tmp_path, mode):
    image = Image.fromarray(PIXELS.transpose(1, 2, 0)).convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    image.save(tmp_path / name)
    pixels, valid, _ = whole(tmp_path / name)
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    assert valid.all()


def test_black_is_valid_unless_asked(tmp_path, save):
    black = PIXELS.transpose(1, 2, 0).copy()
    black[3:5] = 0
    path = save(tmp_path / "a.png", black)
    _, valid, picture = whole(path)
    assert valid.all()
    assert picture.black == 60
    _, valid, picture = whole(path, black_is_nodata=True)
    assert not valid[3:5].any()
    assert valid.sum() == 18 * 30


def test_a_geotiff_keeps_georeference_and_gives_rgb(write_raster, utm):
    pixels, valid, picture = whole(write_raster("a.tif", PIXELS, photometric="RGB", **utm))
    assert isinstance(picture, GeoRaster)
    assert picture.crs.to_epsg() == 32749
    assert picture.transform == utm["transform"]
    assert np.array_equal(pixels, PIXELS)
    assert valid.all()
    assert picture.notes == []


def test_a_plain_tiff_is_a_photo_and_one_with_nodata_is_not(write_raster):
    _, _, picture = whole(write_raster("plain.tif", PIXELS, photometric="RGB"))
    assert isinstance(picture, Photo)
    holes = PIXELS.copy()
    holes[:, 4, 5] = 0
    holes[0, 6, 7] = 0
    _, valid, picture = whole(write_raster("n.tif", holes, photometric="RGB", nodata=0))
    assert isinstance(picture, GeoRaster)
    assert np.argwhere(~valid).tolist() == [[4, 5]]
    assert picture.crs is None
    assert picture.transform is None


def test_alpha_and_internal_mask_say_what_is_valid(write_raster, utm):
    alpha = np.full((1, 20, 30), 255, np.uint8)
    alpha[0, :9] = 0
    alpha[0, 9] = 1
    rgba = np.concatenate([PIXELS, alpha])
    path = write_raster("alpha.tif", rgba, photometric="RGB", alpha="yes", **utm)
    pixels, valid, picture = whole(path)
    assert np.array_equal(valid, alpha[0] > 0)
    assert (pixels[:, :9] == 0).all()
    assert picture.notes == []
    path = write_raster("mask.tif", PIXELS, photometric="RGB", mask=alpha[0], **utm)
    assert np.array_equal(whole(path)[1], alpha[0] > 0)


def test_bands_are_found_by_their_meaning(write_raster, utm):
    path = write_raster("bgr.tif", PIXELS[::-1], bands_are=("blue", "green", "red"), **utm)
    assert np.array_equal(whole(path)[0], PIXELS)


def test_a_fourth_band_that_is_no_alpha_is_left_out_and_said(write_raster, utm):
    four = np.concatenate([PIXELS, PIXELS[:1]])
    path = write_raster("nir.tif", four, photometric="RGB", alpha="unspecified", **utm)
    pixels, valid, picture = whole(path)
    assert np.array_equal(pixels, PIXELS)
    assert valid.all()
    assert picture.notes == ["red, green and blue are used, not band 4 (undefined)"]


def test_one_grey_band_stands_for_three_and_says_so(write_raster, utm):
    pixels, _, picture = whole(write_raster("grey.tif", PIXELS[:1], **utm))
    assert np.array_equal(pixels, np.repeat(PIXELS[:1], 3, axis=0))
    assert picture.notes == ["one grey band stands for red, green and blue"]


def test_a_palette_is_expanded_and_its_nodata_stays(write_raster, utm):
    indices = np.arange(600, dtype=np.uint8).reshape(1, 20, 30) % 3
    colors = {0: (9, 8, 7, 255), 1: (10, 20, 30, 255), 2: (200, 100, 50, 255)}
    path = write_raster("p.tif", indices, colormap=colors, photometric="palette", nodata=0, **utm)
    pixels, valid, _ = whole(path)
    assert pixels[:, 0, 1].tolist() == [10, 20, 30]
    assert pixels[:, 0, 2].tolist() == [200, 100, 50]
    assert np.array_equal(valid, indices[0] != 0)


def test_one_bit_is_black_and_white(write_raster, utm):
    bits = (PIXELS[:1] > 128).astype(np.uint8)
    pixels, _, _ = whole(write_raster("bits.tif", bits, nbits=1, **utm))
    assert np.array_equal(pixels[0], bits[0] * 255)


def test_cmyk_with_georeference_becomes_rgb(write_raster, utm):
    cmyk = np.zeros((4, 20, 30), np.uint8)
    cmyk[0] = 255  # cyan
    pixels, valid, _ = whole(write_raster("cmyk.tif", cmyk, photometric="CMYK", **utm))
    assert pixels[:, 3, 3].tolist() == [0, 255, 255]
    assert valid.all()


@pytest.mark.parametrize("kind", ["rgb", "unmarked", "grey", "alpha", "palette", "nir", "nodata"])
def test_training_and_map_see_the_same(write_raster, utm, kind):
    pixels, options = PIXELS, {"photometric": "RGB"}
    if kind == "unmarked":
        options = {"photometric": "MINISBLACK"}
    elif kind == "grey":
        pixels, options = PIXELS[:1], {}
    elif kind in ("alpha", "nir"):
        pixels = np.concatenate([PIXELS, PIXELS[:1] // 128])
        options["alpha"] = "yes" if kind == "alpha" else "unspecified"
    elif kind == "palette":
        colors = {value: (value, 255 - value, 7, 255) for value in range(256)}
        pixels, options = PIXELS[:1], {"photometric": "palette", "colormap": colors}
    elif kind == "nodata":
        options["nodata"], pixels = 0, PIXELS * (PIXELS[:1] > 99)
    path = write_raster("a.tif", pixels, **options, **utm)
    header = read_header(path)
    assert header.large
    with closing(ImageSource(header)) as source:
        trained, has_content = source.read(0, 20)
    mapped, valid, _ = whole(path)
    assert np.array_equal(trained.transpose(2, 0, 1), mapped)
    assert np.array_equal(has_content, valid)


def test_bands_can_be_given(write_raster, utm):
    many = np.concatenate([PIXELS[:1], PIXELS])
    bands = {"photometric": "MINISBLACK", **utm}
    path = write_raster("many.tif", many, bands_are=("gray", *["undefined"] * 3), **bands)
    with pytest.raises(BadFileError, match=r"many.tif: 4 bands \(gray, undefined.*--bands"):
        open_picture(path)
    assert np.array_equal(whole(path, bands=(4, 3, 2))[0], PIXELS[::-1])
    with pytest.raises(BadFileError, match=r"--bands 1 2 5, but it has 4 band"):
        open_picture(path, bands=(1, 2, 5))


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int16])
@pytest.mark.parametrize("georeferenced", [True, False])
def test_more_than_8_bits_are_refused_with_the_remedy(write_raster, utm, kind, georeferenced):
    reference = utm if georeferenced else {}
    path = write_raster("deep.tif", PIXELS.astype(kind), photometric="RGB", **reference)
    with pytest.raises(BadFileError, match=r"deep.tif: .*(gdal_translate|8-bit RGB)"):
        open_picture(path)


def test_four_bits_are_refused(write_raster, utm):
    path = write_raster("four.tif", PIXELS // 16, nbits=4, photometric="RGB", **utm)
    with pytest.raises(BadFileError, match="4 bits a channel"):
        open_picture(path)


def test_missing_empty_and_damaged_files_are_named(tmp_path, write_raster, utm):
    with pytest.raises(BadFileError, match=r"gone.tif: the file does not exist"):
        open_picture(tmp_path / "gone.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(BadFileError, match=r"empty.tif: the file is empty"):
        open_picture(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("no picture", encoding="utf-8")
    with pytest.raises(BadFileError, match=r"text.tif"):
        open_picture(tmp_path / "text.tif")
    noise = np.random.default_rng(1).integers(0, 256, (3, 400, 400), dtype=np.uint8)
    path = write_raster("cut.tif", noise, photometric="RGB", compress="deflate", **utm)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadFileError, match=r"cut.tif"):
        whole(path)


def test_a_picture_over_pillows_limit_is_read_by_rows(tmp_path, save, monkeypatch):
    path = save(tmp_path / "large.png", PIXELS.transpose(1, 2, 0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    pixels, _, picture = whole(path)
    assert isinstance(picture, GeoRaster)
    assert np.array_equal(pixels, PIXELS)


def test_without_rasterio_photos_are_read_and_geotiffs_name_the_extra(
    tmp_path, save, write_raster, utm, monkeypatch
):
    photo = save(tmp_path / "a.tif", PIXELS.transpose(1, 2, 0))
    path = write_raster("geo.tif", PIXELS, photometric="RGB", **utm)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert np.array_equal(whole(photo)[0], PIXELS)
    with pytest.raises(ImportError, match=r'geo.tif: .* pip install "ignite-salak\[geo\]"'):
        open_picture(path)
