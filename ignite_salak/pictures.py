"""Sheets of patches for people to look at: photo, classes, confidence, errors, and a legend.

A sheet is built of pictures that are put beside and below each other, each with its own room, so
that nothing can overlap. Names are set in DejaVu Sans: Latin, Greek and Cyrillic.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ignite_salak.classes import IGNORE_INDEX, ClassMap

__all__ = [
    "WRONG",
    "Row",
    "color_confidence",
    "color_errors",
    "color_labels",
    "color_pseudo_labels",
    "dim",
    "tile_size",
    "unlabeled_sheet",
    "unlabeled_tiles",
    "validation_sheet",
    "validation_tiles",
]

WRONG = (255, 128, 48)
"""Colour of wrong pixels: bright against the dimmed photo for colour-blind people, too."""

_LARGEST, _SMALLEST, _ENLARGED = 256, 128, 160  # sides of a tile, pixels
_DIM_BLACK, _DIM_WHITE = 20, 102
_STRIPES = ((222, 222, 222), (120, 120, 120))
_STRIPE_PERIOD, _STRIPE_WIDTH = 8, 3

_MARGIN, _GAP, _COLUMN_GAP, _LINE_GAP = 24, 18, 10, 6
_NARROWEST = 640  # so that titles and legends of few small tiles have room
_TEXT, _FAINT, _OUTLINE = (33, 37, 41), (95, 100, 106), (150, 150, 150)
_SWATCH = (24, 15)
_SCALE_WIDTH = 120


@dataclass(frozen=True)
class Row:
    """One patch on a sheet.

    Attributes:
        name: name of the patch; shortened in its middle where there is no room.
        facts: what is to be known of it, behind the name.
        tiles: one picture per column, uint8 [H, W, 3] of one size.
    """

    name: str
    facts: str
    tiles: tuple[np.ndarray, ...]


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Returns the size at which a patch is shown.

    Patches over 256 pixels are reduced to 256, patches under 128 are enlarged by a whole number to
    at least 160, others keep their size; the longer side counts.

    Args:
        height: of the patch, pixels.
        width: of the patch, pixels.
    """
    longest = max(height, width)
    if longest < _SMALLEST:
        times = math.ceil(_ENLARGED / longest)
        return height * times, width * times
    factor = min(1.0, _LARGEST / longest)
    return max(1, round(height * factor)), max(1, round(width * factor))


def color_labels(labels: np.ndarray, classes: ClassMap) -> np.ndarray:
    """Paints every class in its colour, and ignored pixels in stripes of two greys.

    Args:
        labels: class indices or 255, integer [H, W].
        classes: the class list.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: not two dimensions, or an index without class.
    """
    ignored = labels == IGNORE_INDEX
    if labels.ndim != 2:
        raise ValueError(f"labels of shape {labels.shape}, expected [H, W]")
    strange = ~ignored & ((labels < 0) | (labels >= classes.num_classes))
    if strange.any():
        raise ValueError(
            f"label {labels[strange][0]}, expected 0 to {classes.num_classes - 1} or {IGNORE_INDEX}"
        )
    painted = classes.palette[np.where(ignored, 0, labels)]
    return np.where(ignored[..., None], _stripes(*labels.shape), painted)


def color_confidence(confidence: np.ndarray) -> np.ndarray:
    """Paints 0 to 1 in viridis, dark to bright.

    Args:
        confidence: floating point [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    return colormaps["viridis"](np.clip(confidence, 0.0, 1.0), bytes=True)[..., :3]


def dim(image: np.ndarray) -> np.ndarray:
    """Returns a photo in dark greys, on which every bright colour stands out.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        uint8 [H, W, 3], at most 102.
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)
    dimmed = np.rint(_DIM_BLACK + grey * ((_DIM_WHITE - _DIM_BLACK) / 255))
    return np.repeat(dimmed.astype(np.uint8)[..., None], 3, axis=2)


def color_errors(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Paints wrong pixels over the dimmed photo, and ignored ones in stripes.

    Args:
        image: uint8 [H, W, 3].
        truth: class indices or 255, integer [H, W].
        prediction: class indices, integer [H, W].

    Returns:
        uint8 [H, W, 3].
    """
    _check(image, truth=truth, prediction=prediction)
    picture = dim(image)
    picture[prediction != truth] = WRONG
    ignored = truth == IGNORE_INDEX
    picture[ignored] = _stripes(*truth.shape)[ignored]
    return picture


def color_pseudo_labels(image: np.ndarray, labels: np.ndarray, classes: ClassMap) -> np.ndarray:
    """Paints kept pixels in the colours of their classes over the dimmed photo.

    Args:
        image: uint8 [H, W, 3].
        labels: class indices, 255 where nothing was kept, integer [H, W].
        classes: the class list.

    Returns:
        uint8 [H, W, 3].
    """
    _check(image, labels=labels)
    kept = (labels != IGNORE_INDEX)[..., None]
    return np.where(kept, color_labels(labels, classes), dim(image))


def validation_tiles(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    confidence: np.ndarray,
    classes: ClassMap,
) -> tuple[np.ndarray, ...]:
    """Returns image, truth, prediction, confidence and errors, each uint8 [h, w, 3].

    Args:
        image: uint8 [H, W, 3].
        truth: class indices or 255, integer [H, W].
        prediction: class indices, integer [H, W].
        confidence: probability of the prediction, floating point [H, W].
        classes: the class list.

    Raises:
        ValueError: the shapes differ, or an index has no class.
    """
    _check(image, truth=truth, prediction=prediction, confidence=confidence)
    image, truth = _resize_photo(image), _resize_labels(truth)
    prediction = _resize_labels(prediction)
    return (
        image,
        color_labels(truth, classes),
        color_labels(prediction, classes),
        color_confidence(_resize_scalars(confidence)),
        color_errors(image, truth, prediction),
    )


def unlabeled_tiles(
    image: np.ndarray,
    prediction: np.ndarray,
    confidence: np.ndarray,
    classes: ClassMap,
    pseudo_labels: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Returns image, prediction, confidence and, where given, pseudo-labels, uint8 [h, w, 3].

    Args:
        image: uint8 [H, W, 3].
        prediction: class indices, integer [H, W].
        confidence: probability of the prediction, floating point [H, W].
        classes: the class list.
        pseudo_labels: class indices, 255 where nothing was kept, integer [H, W], or None.

    Raises:
        ValueError: the shapes differ, or an index has no class.
    """
    _check(image, prediction=prediction, confidence=confidence)
    photo = _resize_photo(image)
    tiles = (
        photo,
        color_labels(_resize_labels(prediction), classes),
        color_confidence(_resize_scalars(confidence)),
    )
    if pseudo_labels is None:
        return tiles
    _check(image, pseudo_labels=pseudo_labels)
    return *tiles, color_pseudo_labels(photo, _resize_labels(pseudo_labels), classes)


def validation_sheet(title: str, rows: Sequence[Row], classes: ClassMap) -> np.ndarray:
    """Draws rows of ``validation_tiles`` under a title, with the legend below.

    Args:
        title: heading of the sheet.
        rows: at least one.
        classes: the class list.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: no row, or one with another number of tiles.
    """
    notes = [
        _entry(_fill(WRONG), "wrong"),
        _entry(_fill((61, 61, 61)), "correct: photo in dark grey"),
        _entry(_stripes(*_SWATCH[::-1]), "ignored: without label"),
    ]
    columns = ("image", "truth", "prediction", "confidence", "errors")
    return _sheet(title, columns, rows, classes, notes)


def unlabeled_sheet(title: str, rows: Sequence[Row], classes: ClassMap) -> np.ndarray:
    """Draws rows of ``unlabeled_tiles``, all with or all without pseudo-labels.

    Args:
        title: heading of the sheet.
        rows: at least one.
        classes: the class list.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: no row, or one with another number of tiles.
    """
    columns = ["image", "prediction", "confidence"]
    notes = []
    if rows and len(rows[0].tiles) > len(columns):
        columns.append("pseudo-labels")
        notes.append(_entry(_fill((61, 61, 61)), "no pseudo-label: photo in dark grey"))
    return _sheet(title, columns, rows, classes, notes)


def _check(image: np.ndarray, **maps: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image of {image.dtype} {image.shape}, expected uint8 [H, W, 3]")
    for name, values in maps.items():
        if values.shape != image.shape[:2]:
            raise ValueError(f"{name} of shape {values.shape}, the image has {image.shape[:2]}")


def _resize_photo(image: np.ndarray) -> np.ndarray:
    height, width = tile_size(*image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _resize_labels(labels: np.ndarray) -> np.ndarray:
    height, width = tile_size(*labels.shape)
    picture = Image.fromarray(labels.astype(np.int32))
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))


def _resize_scalars(values: np.ndarray) -> np.ndarray:
    height, width = tile_size(*values.shape)
    # Enlarged pixels stay as sharp as those of the prediction beside them.
    how = Image.Resampling.NEAREST if height > values.shape[0] else Image.Resampling.BOX
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), how))


def _stripes(height: int, width: int) -> np.ndarray:
    """Diagonal stripes of two greys, uint8 [H, W, 3]."""
    across = np.add.outer(np.arange(height), np.arange(width)) % _STRIPE_PERIOD
    return np.asarray(_STRIPES, dtype=np.uint8)[(across < _STRIPE_WIDTH).astype(int)]


def _sheet(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    classes: ClassMap,
    notes: Sequence[Image.Image],
) -> np.ndarray:
    for row in rows:
        if len(row.tiles) != len(columns):
            raise ValueError(
                f"{row.name}: {len(row.tiles)} tiles, expected {len(columns)}: {', '.join(columns)}"
            )
    if not rows:
        raise ValueError("a sheet without rows")
    headings = [_write(name, 14, bold=True) for name in columns]
    widths = [
        max(heading.width, *(_frame(row.tiles[column]).width for row in rows))
        for column, heading in enumerate(headings)
    ]
    room = max(_NARROWEST, sum(widths) + _COLUMN_GAP * (len(widths) - 1))
    swatches = [
        _entry(_fill(color), name, room)
        for name, color in zip(classes.names, classes.colors, strict=True)
    ]
    table = [_beside([_widen(*pair) for pair in zip(headings, widths, strict=True)], _COLUMN_GAP)]
    table += [_draw_row(row, widths, room) for row in rows]
    sheet = _below(
        [
            _write(title, 19, bold=True, room=room),
            _below(table, 14),
            _grid(swatches, room),
            _grid([_scale(), *notes], room),
        ],
        _GAP,
    )
    return np.array(ImageOps.expand(_widen(sheet, room), _MARGIN, "white"))


def _draw_row(row: Row, widths: Sequence[int], room: int) -> Image.Image:
    facts = _write(row.facts, 13, color=_FAINT, room=room // 2)
    name = _write(row.name, 13, room=room - facts.width - _GAP)
    tiles = [_widen(_frame(tile), width) for tile, width in zip(row.tiles, widths, strict=True)]
    return _below([_beside([name, facts], _GAP), _beside(tiles, _COLUMN_GAP)], _LINE_GAP)


def _frame(tile: np.ndarray) -> Image.Image:
    """Outlines a tile, so that classes near white keep their border."""
    return ImageOps.expand(Image.fromarray(tile), 1, _OUTLINE)


def _entry(swatch: np.ndarray, name: str, room: int | None = None) -> Image.Image:
    box = _frame(swatch)
    return _beside([box, _write(name, 13, room=room and room - box.width - 8)], 8, centered=True)


def _fill(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((_SWATCH[1], _SWATCH[0], 3), color, dtype=np.uint8)


def _scale() -> Image.Image:
    ramp = np.tile(np.linspace(0.0, 1.0, _SCALE_WIDTH), (_SWATCH[1], 1))
    parts = [_write("confidence 0", 13), _frame(color_confidence(ramp)), _write("1", 13)]
    return _beside(parts, 8, centered=True)


def _grid(entries: Sequence[Image.Image], room: int) -> Image.Image:
    """Sets entries in aligned columns, on as few lines of about equal length as there is room."""
    for lines in range(1, len(entries) + 1):
        across = math.ceil(len(entries) / lines)
        widths = [max(entry.width for entry in entries[i::across]) for i in range(across)]
        if sum(widths) + _GAP * (across - 1) <= room:
            break
    starts = range(0, len(entries), across)
    return _below([_line(entries[start : start + across], widths) for start in starts], _LINE_GAP)


def _line(entries: Sequence[Image.Image], widths: Sequence[int]) -> Image.Image:
    return _beside([_widen(*pair) for pair in zip(entries, widths, strict=False)], _GAP)


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    weight = "bold" if bold else "normal"
    return ImageFont.truetype(findfont(FontProperties(family="DejaVu Sans", weight=weight)), size)


def _write(
    text: str,
    size: int,
    *,
    bold: bool = False,
    color: tuple[int, int, int] = _TEXT,
    room: int | None = None,
) -> Image.Image:
    """Draws one line on a canvas that holds all of it; longer than ``room``, it is shortened."""
    font = _font(size, bold)
    text = " ".join(text.split())
    if room is not None:
        text = _shorten(text, font, room)
    ascent, descent = font.getmetrics()
    left, top, right, bottom = (round(value) for value in font.getbbox(text))
    left, top = min(0, left), min(0, top)
    canvas = Image.new(
        "RGB", (max(1, right - left), max(ascent + descent, bottom) - top), (255, 255, 255)
    )
    ImageDraw.Draw(canvas).text((-left, -top), text, fill=color, font=font)
    return canvas


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Takes characters out of the middle: patch names differ at both ends."""

    def cut(kept: int) -> str:
        return f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"

    def too_wide(shown: str) -> bool:
        left, _, right, _ = font.getbbox(shown)
        return right - min(0, left) > room

    if not too_wide(text):
        return text
    return cut(max(0, bisect_left(range(len(text)), True, key=lambda n: too_wide(cut(n))) - 1))


def _widen(picture: Image.Image, width: int) -> Image.Image:
    canvas = Image.new("RGB", (max(width, picture.width), picture.height), (255, 255, 255))
    canvas.paste(picture)
    return canvas


def _beside(pictures: Sequence[Image.Image], gap: int, *, centered: bool = False) -> Image.Image:
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    left = 0
    for picture in pictures:
        canvas.paste(picture, (left, (height - picture.height) // 2 if centered else 0))
        left += picture.width + gap
    return canvas


def _below(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    return canvas
