"""Headers tell the truth about the pixels; every kind of photo and mask is read or refused."""

import sys

import numpy as np
import pytest
from PIL import Image

from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.sources import ImageSource, MaskSource, read_header

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 256, (12, 9, 3)).astype(np.uint8)


class TestHeaders:
    @pytest.mark.parametrize("name", ["a.png", "A.JPG", "a.tif", "a.TIFF"])
    def test_size(self, tmp_path, save, name):
        header = read_header(save(tmp_path / name, PIXELS))
        assert (header.height, header.width, header.size) == (12, 9, "9 x 12")
        assert not header.large and header.orientation == 1

    @pytest.mark.parametrize("orientation", [*range(1, 9), 99])
    def test_size_once_upright(self, tmp_path, save, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / "a.jpg", PIXELS, exif=exif)
        header = read_header(path)
        assert (header.height, header.width) == read_image(path).shape[:2]
        assert header.orientation == (1 if orientation == 99 else orientation)

    @pytest.mark.parametrize("tag", [33550, 42113])
    def test_georeference_and_nodata_make_it_large(self, tmp_path, save, tag):
        value = "0" if tag == 42113 else (1.0, 1.0, 0.0)
        path = save(tmp_path / "a.tif", PIXELS, tiffinfo={tag: value})
        header = read_header(path)
        assert header.large and (header.height, header.width) == (12, 9)

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("a.jpg", b"", "the file is empty"),
            ("a.tif", b"", "the file is empty"),
            ("a.png", b"text", "the file is no image"),
            ("a.tif", b"II*\0\xff\xff\xff\xff", "no image|cannot be decoded"),
            ("gone.jpg", None, "does not exist"),
        ],
    )
    def test_bad_files(self, tmp_path, name, content, reason):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadFileError, match=reason) as caught:
            read_header(path)
        assert str(caught.value).startswith(f"{path}: ")

    def test_bands_that_pillow_does_not_know(self, tmp_path):
        rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
        path = tmp_path / "a.tif"
        with (
            pytest.warns(rasterio.errors.NotGeoreferencedWarning),
            rasterio.open(
                path, "w", driver="GTiff", height=12, width=9, count=5, dtype="uint16"
            ) as file,
        ):
            file.write(np.ones((5, 12, 9), np.uint16))
        with pytest.raises(BadFileError, match=r"5 band\(s\) of 16 bits.*8-bit RGB"):
            read_header(path)

    def test_too_large_for_pillow(self, tmp_path, save, monkeypatch):
        pytest.importorskip("rasterio", reason="the extra geo is not installed")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        path = save(tmp_path / "a.png", PIXELS)
        header = read_header(path)
        assert header.large and (header.height, header.width) == (12, 9)
        image = ImageSource(header)
        np.testing.assert_array_equal(image.read(3, 7)[0], PIXELS[3:7])
        image.close()

    def test_too_large_for_pillow_and_no_rasterio(self, tmp_path, save, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        monkeypatch.setitem(sys.modules, "rasterio", None)
        with pytest.raises(ImportError, match="very large picture needs rasterio"):
            read_header(save(tmp_path / "a.png", PIXELS))


class TestSources:
    def test_rows_of_a_photo(self, tmp_path, save):
        image = ImageSource(read_header(save(tmp_path / "a.png", PIXELS)))
        pixels, valid = image.read(2, 5)
        np.testing.assert_array_equal(pixels, PIXELS[2:5])
        assert valid is None
        image.close()

    def test_transparent_pixels_have_no_content(self, tmp_path, save):
        alpha = RNG.integers(0, 2, (12, 9, 1)).astype(np.uint8) * 255
        path = save(tmp_path / "a.png", np.concatenate([PIXELS, alpha], axis=2))
        pixels, valid = ImageSource(read_header(path)).read(0, 12)
        np.testing.assert_array_equal(valid, alpha[..., 0] > 0)
        np.testing.assert_array_equal(pixels, PIXELS * (alpha > 0))

    def test_rows_of_a_mask_may_be_changed(self, tmp_path, save, classes):
        labels = RNG.integers(0, 3, (12, 9)).astype(np.uint8)
        header = read_header(save(tmp_path / "a.png", classes.palette[labels]))
        mask = MaskSource(header, MaskReader(classes), None)
        mask.read(0, 12)[:] = 7
        np.testing.assert_array_equal(mask.read(4, 9), labels[4:9])
        mask.close()
