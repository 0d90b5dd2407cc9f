"""Sheets: every tile whole, and room for every name."""

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont

from ignite_salak.classes import ClassMap
from ignite_salak.pictures import Row, unlabeled_sheet, unlabeled_tiles, validation_sheet

MARGIN = 24
WHITE = (255, 255, 255)


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


class TestSheet:
    def test_tiles_lie_whole_and_in_order(self, validation_row, classes):
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

    def test_headings_names_and_facts_are_shown(self, validation_row, classes):
        sheet = validation_sheet(
            "Title", [validation_row(32, 32, classes, "fläche/участок")], classes
        )
        for text in ("fläche/участок", "ignored: without label", "wrong", "1"):
            assert places(sheet, text_picture(text)), text

    def test_every_class_has_its_swatch_and_its_name_right_of_it(self, validation_row):
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
    def test_the_margin_stays_empty_whatever_the_names(self, validation_row, size):
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

    def test_a_long_patch_name_keeps_its_start_and_leaves_room_for_the_facts(
        self, validation_row, classes
    ):
        row = validation_row(32, 32, classes, "START" + "x" * 300 + "_013_002")
        sheet = validation_sheet("Title", [row], classes)
        ((top, left),) = places(sheet, text_picture("START"))
        ((facts_top, facts_left),) = places(sheet, text_picture("100.0% correct", (95, 100, 106)))
        assert left == MARGIN
        assert facts_top == top
        gap = sheet[top : top + 18, facts_left - 18 : facts_left]
        assert (gap == 255).all()
        assert (sheet[top : top + 18, facts_left - 60 : facts_left - 18] != 255).any()

    def test_unlabelled_sheets_are_narrower_without_pseudo_labels(self, photo, classes):
        labels = np.zeros((256, 256), dtype=np.int64)
        arguments = photo(256, 256), labels, np.zeros((256, 256), np.float32), classes
        few = Row("a", "", unlabeled_tiles(*arguments))
        all_ = Row("a", "", unlabeled_tiles(*arguments, labels))
        note = text_picture("no pseudo-label: photo in dark grey")
        without, with_ = (unlabeled_sheet("Title", [row], classes) for row in (few, all_))
        assert with_.shape[1] == without.shape[1] + 258 + 10
        assert not places(without, note)
        assert len(places(with_, note)) == 1

    def test_rows_that_do_not_fit_are_refused(self, validation_row, classes):
        with pytest.raises(ValueError, match="without rows"):
            validation_sheet("Title", [], classes)
        with pytest.raises(ValueError, match="without rows"):
            unlabeled_sheet("Title", [], classes)
        with pytest.raises(ValueError, match="patch: 5 tiles, expected 4"):
            unlabeled_sheet("Title", [validation_row(8, 8, classes)], classes)
