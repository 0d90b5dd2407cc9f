"""Sheets of patches: a title, rows of tiles under headings, and a legend.

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
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ignite_salak.classes import ClassMap
from ignite_salak.pictures.colors import WRONG, color_confidence, stripes

__all__ = ["Row", "unlabeled_sheet", "validation_sheet"]

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
        _entry(stripes(*_SWATCH[::-1]), "ignored: without label"),
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
