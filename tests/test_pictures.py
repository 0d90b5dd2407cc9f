"""Sheets: the colour of known pixels, and room for every name."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from ignite_salak.classes import ClassMap
from ignite_salak.pictures import (
    WRONG,
    Row,
    color_confidence,
    color_errors,
    color_labels,
    color_pseudo_labels,
    dim,
    tile_size,
    unlabeled_sheet,
    unlabeled_tiles,
    validation_sheet,
    validation_tiles,
)

MARGIN = 24
WHITE = (255, 255, 255)


def photo(height, width, color=(90, 120, 60)):
    return np.full((height, width, 3), color, dtype=np.uint8)


def validation_row(height, width, classes, name="patch"):
    labels = np.arange(height * width).reshape(height, width) % classes.num_classes
    confidence = np.full((height, width), 0.5, dtype=np.float32)
    tiles = validation_tiles(photo(height, width), labels, labels, confidence, classes)
    return Row(name, "100.0% correct", tiles)


def text_picture(text, color=(33, 37, 41)):
    font = ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans")), 13)
    left, _, right, bottom = font.getbbox(text)
    canvas = Image.new("RGB", (int(right - min(0, left)), int(bottom)), "white")
    ImageDraw.Draw(canvas).text((-min(0, left), 0), text, fill=color, font=font)
    return np.asarray(canvas)


def places(sheet, part):
    """Every (top, left) at which ``part`` lies on ``sheet``."""
    sheet, part = (picture @ np.array([1, 256, 65536]) for picture in (sheet, part))
    height, width = part.shape
    rows, columns = sheet.shape[0] - height + 1, sheet.shape[1] - width + 1
    darkest = np.unravel_index(part.argmin(), (height, width))
    possible = np.ones((rows, columns), dtype=bool)
    for y, x in (darkest, (0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)):
        possible &= sheet[y : y + rows, x : x + columns] == part[y, x]
    return [
        (int(top), int(left))
        for top, left in np.argwhere(possible)
        if np.array_equal(sheet[top : top + height, left : left + width], part)
    ]


def framed(picture):
    return np.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=150)


def swatch_of(color):
    return framed(np.full((15, 24, 3), color, dtype=np.uint8))


class TestTileSize:
    @pytest.mark.parametrize(
        ("size", "shown"),
        [
            ((256, 256), (256, 256)),
            ((128, 200), (128, 200)),
            ((512, 256), (256, 128)),
            ((1024, 1), (256, 1)),
            ((32, 32), (160, 160)),
            ((127, 10), (254, 20)),
            ((1, 1), (160, 160)),
        ],
    )
    def test_is_readable_and_bounded(self, size, shown):
        assert tile_size(*size) == shown


class TestColors:
    def test_labels_have_the_colours_of_their_classes_and_ignored_ones_are_striped(self, classes):
        picture = color_labels(np.array([[0, 1, 2] + [255] * 8]), classes)
        assert picture.dtype == np.uint8
        assert [tuple(pixel) for pixel in picture[0, :3]] == list(classes.colors)
        assert {tuple(pixel) for pixel in picture[0, 3:].tolist()} == {
            (222, 222, 222),
            (120, 120, 120),
        }

    @pytest.mark.parametrize("label", [3, 254, -1])
    def test_an_index_without_class_is_refused(self, classes, label):
        with pytest.raises(ValueError, match=f"label {label}, expected 0 to 2 or 255"):
            color_labels(np.array([[0, label]]), classes)

    def test_labels_of_another_shape_are_refused(self, classes):
        with pytest.raises(ValueError, match="expected \\[H, W\\]"):
            color_labels(np.zeros((1, 2, 2), dtype=np.int64), classes)

    def test_confidence_is_viridis(self):
        picture = color_confidence(np.array([[0.0, 1.0, 1.2]], dtype=np.float32))
        assert picture[0].tolist() == [[68, 1, 84], [253, 231, 36], [253, 231, 36]]

    def test_a_dimmed_photo_is_dark_grey(self):
        image = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], dtype=np.uint8)
        # Luminance of red is 0.299 * 255 = 76; 20 + 76 * 82 / 255 = 44.4.
        assert dim(image)[0].tolist() == [[20] * 3, [102] * 3, [44] * 3]

    def test_wrong_pixels_stand_out_correct_ones_are_dimmed_ignored_ones_neither(self):
        truth = np.array([[0, 1, 255]])
        picture = color_errors(photo(1, 3, WHITE), truth, np.array([[0, 2, 1]]))
        assert picture[0, :2].tolist() == [[102, 102, 102], list(WRONG)]
        assert picture[0, 2, 0] in (120, 222)

    def test_only_kept_pixels_have_a_colour(self, classes):
        picture = color_pseudo_labels(photo(1, 2, WHITE), np.array([[2, 255]]), classes)
        assert picture[0].tolist() == [[20, 60, 200], [102, 102, 102]]


class TestTiles:
    def test_of_validation_in_order(self, classes):
        truth = np.full((128, 128), 1)
        truth[:, 64:] = 255
        prediction = np.full((128, 128), 2)
        confidence = np.full((128, 128), 0.25, dtype=np.float32)
        tiles = validation_tiles(photo(128, 128), truth, prediction, confidence, classes)
        viridis = colormaps["viridis"](0.25, bytes=True)[:3]
        first = [tuple(tile[5, 5].tolist()) for tile in tiles]
        assert first == [(90, 120, 60), (255, 50, 10), (20, 60, 200), viridis, WRONG]
        assert tuple(tiles[1][5, 100]) not in classes.colors
        assert tiles[1][5, 100].tolist() == tiles[4][5, 100].tolist()

    def test_of_unlabelled_patches_in_order(self, classes):
        kept = np.full((128, 128), 255)
        kept[0, 0] = 1
        prediction = np.ones((128, 128), dtype=np.int64)
        confidence = np.ones((128, 128), dtype=np.float32)
        tiles = unlabeled_tiles(photo(128, 128), prediction, confidence, classes, kept)
        assert [tile[0, 0].tolist() for tile in tiles] == [
            [90, 120, 60],
            [255, 50, 10],
            [253, 231, 36],
            [255, 50, 10],
        ]
        assert tiles[3][1, 1].tolist() == dim(photo(1, 1))[0, 0].tolist()
        assert len(unlabeled_tiles(photo(9, 9), kept[:9, :9], confidence[:9, :9], classes)) == 3

    def test_small_labels_are_enlarged_without_new_ones(self, classes):
        labels = np.array([[0, 1], [2, 255]])
        tiles = validation_tiles(photo(2, 2), labels, labels, np.eye(2), classes)
        assert {tile.shape for tile in tiles} == {(160, 160, 3)}
        assert (tiles[1][:80, 80:] == classes.colors[1]).all()
        assert (tiles[1][80:, :80] == classes.colors[2]).all()
        assert (tiles[3][:80, :80] == (253, 231, 36)).all()

    @pytest.mark.parametrize(
        ("size", "shape"), [((512, 300), (256, 150, 3)), ((1, 300), (1, 256, 3))]
    )
    def test_large_and_odd_patches_are_reduced(self, classes, size, shape):
        assert {tile.shape for tile in validation_row(*size, classes).tiles} == {shape}

    def test_wrong_shapes_are_refused(self, classes):
        labels, confidence = np.zeros((8, 8), dtype=np.int64), np.zeros((8, 8), dtype=np.float32)
        with pytest.raises(ValueError, match=r"truth of shape \(8, 7\), the image has \(8, 8\)"):
            validation_tiles(photo(8, 8), labels[:, :7], labels, confidence, classes)
        with pytest.raises(ValueError, match="confidence of shape"):
            unlabeled_tiles(photo(8, 8), labels, confidence[None], classes)
        with pytest.raises(ValueError, match="pseudo_labels of shape"):
            unlabeled_tiles(photo(8, 8), labels, confidence, classes, labels[1:])
        with pytest.raises(ValueError, match=r"image of uint8 \(3, 8, 8\), expected uint8 \[H"):
            validation_tiles(np.zeros((3, 8, 8), np.uint8), labels, labels, confidence, classes)
        with pytest.raises(ValueError, match="image of float64"):
            unlabeled_tiles(photo(8, 8) / 255, labels, confidence, classes)


class TestSheet:
    def test_tiles_lie_whole_and_in_order(self, classes):
        rows = [validation_row(128, 140, classes, "one"), validation_row(60, 20, classes, "two")]
        sheet = validation_sheet("Title", rows, classes)
        assert (sheet.dtype, sheet.shape[2]) == (np.uint8, 3)
        lefts = []
        for row in rows:
            # The truth is the prediction, so that picture is found twice.
            found = [places(sheet, framed(tile)) for tile in row.tiles]
            assert [len(places_) for places_ in found] == [1, 2, 2, 1, 1]
            assert len({top for places_ in found for top, _ in places_}) == 1
            lefts.append([found[0][0][1], *(p[1] for p in found[1]), *(p[0][1] for p in found[3:])])
        assert lefts[0] == lefts[1] == sorted(lefts[0])

    def test_headings_names_and_facts_are_shown(self, classes):
        sheet = validation_sheet(
            "Title", [validation_row(32, 32, classes, "fläche/участок")], classes
        )
        for text in ("fläche/участок", "ignored: without label", "wrong", "1"):
            assert places(sheet, text_picture(text)), text

    def test_every_class_has_its_swatch_and_its_name_right_of_it(self):
        names = tuple(f"κλάση номер {i}, with a rather long name" for i in range(25))
        colors = ((255, 255, 255), (0, 0, 0), *((10 * i, 255 - 9 * i, 7 * i) for i in range(23)))
        classes = ClassMap(names, colors)
        sheet = validation_sheet("Title", [validation_row(32, 32, classes)], classes)
        seen = []
        for name, color in zip(names, colors, strict=True):
            swatches = places(sheet, swatch_of(color))
            assert len(swatches) == 1, name
            texts = [
                (top, left)
                for top, left in places(sheet, text_picture(name))
                if abs(top - swatches[0][0]) < 8 and left == swatches[0][1] + 34
            ]
            assert len(texts) == 1, name
            seen += swatches
        assert len({top for top, _ in seen}) > 1
        assert len({left for _, left in seen}) > 1

    @pytest.mark.parametrize("size", [(1, 1), (33, 17), (500, 301)])
    def test_the_margin_stays_empty_whatever_the_names(self, size):
        classes = ClassMap(("n" * 500, "Ñandú\nlíne Й" * 20, "j"), ((0, 0, 0), WHITE, (1, 1, 1)))
        row = validation_row(*size, classes, name="p" * 999)
        sheet = validation_sheet("T" * 300, [row], classes)
        short = ClassMap(("n", "m", "j"), classes.colors)
        plain = validation_sheet("T", [validation_row(*size, short, name="p")], short)
        assert sheet.shape[1] == plain.shape[1]
        inner = sheet[MARGIN:-MARGIN, MARGIN:-MARGIN]
        border = sheet.copy()
        border[MARGIN:-MARGIN, MARGIN:-MARGIN] = 255
        assert (border == 255).all()
        assert (inner != 255).any()

    def test_a_long_patch_name_keeps_its_start_and_leaves_room_for_the_facts(self, classes):
        row = validation_row(32, 32, classes, "START" + "x" * 300 + "_013_002")
        sheet = validation_sheet("Title", [row], classes)
        ((top, left),) = places(sheet, text_picture("START"))
        ((facts_top, facts_left),) = places(sheet, text_picture("100.0% correct", (95, 100, 106)))
        assert left == MARGIN
        assert facts_top == top
        gap = sheet[top : top + 18, facts_left - 18 : facts_left]
        assert (gap == 255).all()
        assert (sheet[top : top + 18, facts_left - 60 : facts_left - 18] != 255).any()

    def test_unlabelled_sheets_are_narrower_without_pseudo_labels(self, classes):
        labels = np.zeros((256, 256), dtype=np.int64)
        arguments = photo(256, 256), labels, np.zeros((256, 256), np.float32), classes
        few = Row("a", "", unlabeled_tiles(*arguments))
        all_ = Row("a", "", unlabeled_tiles(*arguments, labels))
        note = text_picture("no pseudo-label: photo in dark grey")
        without, with_ = (unlabeled_sheet("Title", [row], classes) for row in (few, all_))
        assert with_.shape[1] == without.shape[1] + 258 + 10
        assert not places(without, note)
        assert len(places(with_, note)) == 1

    def test_rows_that_do_not_fit_are_refused(self, classes):
        with pytest.raises(ValueError, match="without rows"):
            validation_sheet("Title", [], classes)
        with pytest.raises(ValueError, match="without rows"):
            unlabeled_sheet("Title", [], classes)
        with pytest.raises(ValueError, match="patch: 5 tiles, expected 4"):
            unlabeled_sheet("Title", [validation_row(8, 8, classes)], classes)
