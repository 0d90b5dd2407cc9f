"""Images and masks of every format, and every refusal."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image, read_photo

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, (12, 10)).astype(np.uint8)
NO_BLACK = ClassMap(("building", "land", "road"), ((60, 16, 152), (132, 41, 246), (110, 193, 228)))


def palette_image(indices, colors):
    image = Image.fromarray(np.asarray(indices, np.uint8))
    image.putpalette([channel for color in colors for channel in color])
    return image


def write_png16(path, channels):
    """Writes a PNG with 16 bits a channel, which Pillow itself cannot write in colours."""
    color_type = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", 4, 3, 16, color_type, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(range(8 * channels))) * 3)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with path.open("ab") as file:
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + checksum)


class TestImages:
    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "A.PNG", "Ä ö.TIF"])
    def test_lossless_formats_return_the_pixels(self, tmp_path, save, name):
        pixels = RNG.integers(0, 256, (9, 13, 3)).astype(np.uint8)
        image = read_image(save(tmp_path / name, pixels))
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels)

    def test_jpeg_is_rgb_in_this_order(self, tmp_path, save):
        pixels = np.full((16, 16, 3), (200, 100, 20), np.uint8)
        image = read_image(save(tmp_path / "a.JPG", pixels, quality=95))
        assert np.abs(image.astype(int) - pixels).max() <= 3

    def test_grey_and_palette_become_rgb(self, tmp_path, save):
        grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
        image = read_image(save(tmp_path / "grey.png", grey))
        np.testing.assert_array_equal(image, np.stack([grey] * 3, axis=-1))
        colors = [(7, 8, 9), (200, 1, 2)]
        image = read_image(save(tmp_path / "palette.png", palette_image([[0, 1]], colors)))
        np.testing.assert_array_equal(image, [colors])

    def test_cmyk_becomes_rgb(self, tmp_path, save):
        image = Image.new("CMYK", (4, 3), (0, 255, 255, 0))
        np.testing.assert_array_equal(
            read_image(save(tmp_path / "a.tif", image)), np.full((3, 4, 3), (255, 0, 0))
        )

    def test_transparent_pixels_become_black(self, tmp_path, save):
        pixels = np.full((2, 2, 4), (9, 8, 7, 255), np.uint8)
        pixels[0, 0, 3] = 0
        pixels[0, 1, 3] = 1
        image = read_image(save(tmp_path / "a.png", pixels))
        np.testing.assert_array_equal(image, [[(0, 0, 0), (9, 8, 7)], [(9, 8, 7), (9, 8, 7)]])
        indexed = palette_image([[0, 1]], [(50, 60, 70), (9, 8, 7)])
        image = read_image(save(tmp_path / "p.png", indexed, transparency=0))
        np.testing.assert_array_equal(image, [[(0, 0, 0), (9, 8, 7)]])
        grey = Image.fromarray(np.array([[(90, 0), (90, 255)]], np.uint8), "LA")
        image = read_image(save(tmp_path / "la.png", grey))
        np.testing.assert_array_equal(image, [[(0, 0, 0), (90, 90, 90)]])

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_black_is_not_transparent(self, tmp_path, save, orientation):
        pixels = np.zeros((2, 3, 4), np.uint8)
        pixels[..., 3] = [[255, 0, 255], [0, 255, 255]]
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / "a.png", pixels, exif=exif)
        image, opaque = read_photo(path)
        expected = pixels[..., 3] > 0 if orientation == 1 else np.rot90(pixels[..., 3] > 0, -1)
        np.testing.assert_array_equal(opaque, expected)
        assert image.shape == (*expected.shape, 3) and not image.any()
        assert read_photo(save(tmp_path / "b.png", pixels[..., :3]))[1] is None

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_rotation_is_carried_out(self, tmp_path, save, name, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / name, RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8), exif=exif)
        with Image.open(path) as image:
            expected = np.asarray(ImageOps.exif_transpose(image))
        assert expected.shape[:2] == ((9, 6) if orientation >= 5 else (6, 9))
        np.testing.assert_array_equal(read_image(path), expected)

    def test_odd_exif_tags_do_not_matter(self, tmp_path, save):
        # Orientation 6 and a width that is text: Pillow's exif_transpose raises struct.error here.
        entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI4s", 256, 2, 4, b"x")
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
        path = save(tmp_path / "a.jpg", np.zeros((8, 16, 3), np.uint8), exif=exif)
        assert read_image(path).shape == (16, 8, 3)

    def test_sixteen_bits_are_refused(self, tmp_path, save):
        grey = save(tmp_path / "grey.png", np.zeros((3, 4), np.uint16))
        write_png16(tmp_path / "rgb.png", 3)
        write_png16(tmp_path / "rgba.png", 4)
        for path in (grey, tmp_path / "rgb.png", tmp_path / "rgba.png"):
            with pytest.raises(BadFileError, match="8-bit RGB") as caught:
                read_image(path)
            assert str(caught.value).startswith(str(path))


def damaged_files(folder, save):
    whole = save(folder / "whole.png", RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8))
    content = whole.read_bytes()
    yield folder / "missing.png", "does not exist"
    for name, data, reason in (
        ("empty.png", b"", "empty"),
        ("text.png", b"this is text, not an image", "no image"),
        ("truncated.png", content[: len(content) // 2], "cannot be decoded"),
        ("header.png", content[:40], "no image"),
        ("short_ihdr.png", content[:11] + b"\x05" + content[12:], "cannot be decoded"),
    ):
        (folder / name).write_bytes(data)
        yield folder / name, reason
    (folder / "folder.png").mkdir()
    yield folder / "folder.png", "cannot be decoded"


def test_damaged_files_are_refused_by_name(tmp_path, save, classes):
    for path, reason in damaged_files(tmp_path, save):
        for read in (read_image, MaskReader(classes).read):
            with pytest.raises(BadFileError, match=reason) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_damage_anywhere_raises_nothing_else(tmp_path, save, classes, suffix):
    # 300 files with random bytes changed: each decodes to something or is a BadFileError.
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "DJI"
    pixels = RNG.integers(0, 256, (8, 12, 3)).astype(np.uint8)
    content = save(tmp_path / f"whole.{suffix}", pixels, exif=exif).read_bytes()
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(300):
        data = bytearray(content)
        for position in rng.integers(0, min(len(data), 300), 3):
            data[position] = rng.integers(256)
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(data[: rng.integers(1, 2 * len(data))])
        try:
            outcomes.add(read_image(path).ndim)
        except BadFileError as error:
            assert str(error).startswith(str(path))
            outcomes.add("refused")
    assert outcomes == {3, "refused"}


class TestMasks:
    def test_colours_are_read_in_rgb_order(self, tmp_path, save, classes):
        path = save(tmp_path / "a.png", classes.palette[LABELS])
        for mask_format in ("color", "index"):
            mask, unlisted = MaskReader(classes, mask_format).read(path)
            assert mask.dtype == np.uint8 and not unlisted
            np.testing.assert_array_equal(mask, LABELS)

    def test_the_same_colours_in_bgr_are_unlisted(self, tmp_path, save, classes):
        path = save(tmp_path / "a.png", classes.palette[LABELS][..., ::-1])
        mask, unlisted = MaskReader(classes).read(path)
        np.testing.assert_array_equal(mask, np.where(LABELS == 0, 0, 255))
        assert set(unlisted) == {(10, 50, 255), (200, 60, 20)}

    def test_colours_of_250_classes(self, tmp_path, save):
        colors = tuple((i * 37 % 256, i * 101 % 256, 255 - i) for i in range(250))
        classes = ClassMap(tuple(f"c{i}" for i in range(250)), colors)
        labels = np.arange(250, dtype=np.uint8).reshape(10, 25)
        mask, unlisted = MaskReader(classes).read(save(tmp_path / "a.png", classes.palette[labels]))
        assert not unlisted
        np.testing.assert_array_equal(mask, labels)

    def test_unlisted_colours_are_255_and_counted(self, tmp_path, save, classes):
        pixels = classes.palette[LABELS]
        pixels[0, :3] = (255, 50, 11)
        pixels[1, :5] = (255, 255, 255)
        mask, unlisted = MaskReader(classes).read(save(tmp_path / "a.png", pixels))
        expected = LABELS.copy()
        expected[0, :3] = expected[1, :5] = 255
        np.testing.assert_array_equal(mask, expected)
        assert unlisted == {(255, 50, 11): 3, (255, 255, 255): 5}

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "palette", "16 bit", "tif"])
    def test_indices(self, tmp_path, save, classes, mode):
        labels = LABELS.copy()
        labels[3, :4] = 255
        grey = Image.fromarray(labels)
        image = {
            "L": grey,
            "RGB": grey.convert("RGB"),
            "RGBA": grey.convert("RGBA"),
            "palette": palette_image(labels, classes.colors + ((0, 0, 0),) * 253),
            "16 bit": Image.fromarray(labels.astype(np.uint16)),
            "tif": grey,
        }[mode]
        path = save(tmp_path / ("a.tif" if mode == "tif" else "a.png"), image)
        for mask_format in ("index", "color"):
            mask, unlisted = MaskReader(classes, mask_format).read(path)
            assert mask.dtype == np.uint8 and not unlisted
            np.testing.assert_array_equal(mask, labels)

    def test_two_level_masks(self, tmp_path, save, classes):
        labels = LABELS > 0
        mask, _ = MaskReader(classes).read(save(tmp_path / "a.png", labels))
        np.testing.assert_array_equal(mask, labels)

    def test_palette_of_foreign_colours_means_indices(self, tmp_path, save, classes):
        image = palette_image(LABELS, [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
        mask, unlisted = MaskReader(classes).read(save(tmp_path / "a.png", image))
        assert not unlisted
        np.testing.assert_array_equal(mask, LABELS)

    def test_palette_in_another_order_means_colours(self, tmp_path, save, classes):
        # An image optimiser numbers the colours as they come.
        order = [2, 0, 1]
        stored = np.argsort(order)[LABELS]
        image = palette_image(stored, [classes.colors[i] for i in order])
        mask, unlisted = MaskReader(classes).read(save(tmp_path / "a.png", image))
        assert not unlisted
        np.testing.assert_array_equal(mask, LABELS)

    @pytest.mark.parametrize("color_255", [(0, 0, 0), (255, 255, 255), (20, 60, 200)])
    def test_255_in_a_palette_is_ignored(self, tmp_path, save, classes, color_255):
        expected = LABELS.copy()
        expected[:2] = 255
        for order in ([0, 1, 2], [2, 0, 1]):
            stored = np.argsort(order)[LABELS]
            stored[:2] = 255
            colors = [classes.colors[i] for i in order] + [(0, 0, 0)] * 252 + [color_255]
            path = save(tmp_path / "a.png", palette_image(stored, colors))
            mask, unlisted = MaskReader(classes).read(path)
            assert not unlisted
            np.testing.assert_array_equal(mask, expected)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, "RGB"])
    def test_index_out_of_range_is_refused(self, tmp_path, save, classes, dtype):
        labels = LABELS.copy()
        labels[2, 2] = 7
        image = (
            Image.fromarray(labels).convert("RGB")
            if dtype == "RGB"
            else Image.fromarray(labels.astype(dtype))
        )
        path = save(tmp_path / "a.png", image)
        with pytest.raises(BadFileError, match=r"index 7 is out of range.*3 classes") as caught:
            MaskReader(classes).read(path)
        assert str(caught.value).startswith(str(path))

    def test_large_16_bit_values_do_not_wrap_around(self, tmp_path, save, classes):
        path = save(tmp_path / "a.png", np.full((4, 4), 256 + 1, np.uint16))
        with pytest.raises(BadFileError, match="index 257"):
            MaskReader(classes).read(path)

    def test_sixteen_bit_colours_and_other_modes_are_refused(self, tmp_path, save, classes):
        write_png16(tmp_path / "rgb.png", 3)
        float_path = save(tmp_path / "float.tif", np.zeros((3, 3), np.float32))
        alpha = Image.new("LA", (4, 4), (1, 255))
        for path in (tmp_path / "rgb.png", float_path, save(tmp_path / "la.png", alpha)):
            with pytest.raises(BadFileError) as caught:
                MaskReader(classes).read(path)
            assert str(caught.value).startswith(str(path))

    def test_unknown_format_is_refused(self, classes):
        with pytest.raises(ValueError, match="'rgb'"):
            MaskReader(classes, "rgb")
        with pytest.raises(ValueError, match=r"'rgb'.*auto, color, index"):
            MaskReader.resolve(classes, "rgb", [])


class TestResolve:
    @pytest.fixture
    def samples(self, tmp_path, save):
        black = save(tmp_path / "black.png", np.zeros((4, 4, 3), np.uint8))
        color = save(tmp_path / "color.png", NO_BLACK.palette[LABELS])
        index = save(tmp_path / "index.png", np.stack([LABELS] * 3, axis=-1))
        return {"black": black, "color": color, "index": index}

    def test_one_file_in_colours_decides(self, samples):
        paths = [samples["black"], samples["color"]]
        assert MaskReader.resolve(NO_BLACK, "auto", paths).mask_format == "color"
        paths = [samples["black"], samples["index"]]
        assert MaskReader.resolve(NO_BLACK, "auto", paths).mask_format == "index"

    def test_the_user_decides_if_he_wants(self, samples):
        assert MaskReader.resolve(NO_BLACK, "index", [samples["color"]]).mask_format == "index"
        assert MaskReader.resolve(NO_BLACK, "color", [samples["index"]]).mask_format == "color"

    def test_unusable_samples_are_passed_over(self, tmp_path, samples, save):
        (tmp_path / "empty.png").write_bytes(b"")
        alpha = save(tmp_path / "alpha.png", Image.new("LA", (4, 4)))
        paths = [tmp_path / "empty.png", tmp_path / "missing.png", alpha, samples["color"]]
        assert MaskReader.resolve(NO_BLACK, "auto", paths).mask_format == "color"
        assert MaskReader.resolve(NO_BLACK, "auto", []).mask_format == "index"

    def test_black_means_nothing_among_colours_and_class_0_among_indices(self, samples):
        mask, unlisted = MaskReader(NO_BLACK, "color").read(samples["black"])
        assert (mask == 255).all() and unlisted == {(0, 0, 0): 16}
        mask, unlisted = MaskReader(NO_BLACK, "index").read(samples["black"])
        assert (mask == 0).all() and not unlisted

    def test_indices_stay_indices_where_black_is_a_later_class(self, samples):
        shadow = ClassMap(("other", "road", "shadow"), ((9, 9, 90), (1, 20, 3), (0, 0, 0)))
        mask, _ = MaskReader(shadow, "index").read(samples["black"])
        assert (mask == 0).all()
        mask, _ = MaskReader(shadow, "color").read(samples["black"])
        assert (mask == 2).all()

    @pytest.mark.parametrize("mask_format", ["auto", "color", "index"])
    def test_black_and_white_masks(self, tmp_path, save, mask_format):
        classes = ClassMap(("background", "palm"), ((0, 0, 0), (255, 255, 255)))
        labels = (LABELS > 0).astype(np.uint8)
        for value in (labels, labels * 0, labels * 0 + 1):
            path = save(tmp_path / "a.png", classes.palette[value])
            reader = MaskReader.resolve(classes, mask_format, [path])
            mask, unlisted = reader.read(path)
            assert not unlisted
            np.testing.assert_array_equal(mask, value)
