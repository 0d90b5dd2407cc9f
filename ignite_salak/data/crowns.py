"""The palms of a synthetic plantation: rows of snake fruit and scattered betel nut, from above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ignite_salak.data.scene import (
    BETEL,
    BUILDING,
    OVERHANG,
    ROAD,
    SHADE_GREEN,
    SNAKE,
    WATER,
    Color,
    Point,
    Scene,
    direction,
    lerp,
    value_at,
)

__all__ = ["plant_betel", "plant_snake_fruit"]

_SNAKE_PITCH = 13.5
_SNAKE_RADII = (8.0, 10.5)
_SNAKE_LABEL_RADIUS = 8
_SNAKE_MISSING = 0.06
_BETEL_SHARE = 0.048
_BETEL_RADII = (14.0, 20.0)
_CROWN_VARIANTS = 14
_SUPERSAMPLING = 4
_CROWN_GREENS = ((70, 96, 46), (118, 134, 74))
_BETEL_DISTANCE = 17.0
_BETEL_LIKING = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.35, 0.6], np.float32)
"""How readily betel palms stand on each class, by index."""


@dataclass(frozen=True)
class _Crown:
    """A palm seen from above, to be pasted many times."""

    color: Image.Image  # RGB
    cover: Image.Image  # L: opacity
    outline: tuple[Point, ...]  # polygon around the trunk at (0, 0)


def plant_snake_fruit(scene: Scene) -> None:
    """Plants rows of rosettes in the salak fields and rounds the fields' edges to them."""
    rng = scene.rng
    crowns = [
        _draw_crown(rng, rng.uniform(*_SNAKE_RADII), fronds=int(rng.integers(9, 13)), slimness=0.11)
        for _ in range(_CROWN_VARIANTS)
    ]
    wild = np.isin(scene.labels, (ROAD, WATER, BUILDING))
    photo, labels = _open_layers(scene)
    draw = ImageDraw.Draw(labels)
    for x, y in scene.grid((_SNAKE_PITCH, _SNAKE_PITCH), direction(rng.random()), jitter=2.5):
        window = scene.window(x, y, _SNAKE_LABEL_RADIUS)
        missing = rng.random() < _SNAKE_MISSING
        if value_at(scene.labels, x, y) != SNAKE or wild[window].any() or missing:
            continue
        reach = _SNAKE_LABEL_RADIUS
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=SNAKE)
        _paste(photo, crowns[int(rng.integers(len(crowns)))], x, y)
    _close_layers(scene, photo, labels)


def plant_betel(scene: Scene) -> None:
    """Scatters taller palms over fields, gardens and wild land, in loose groves."""
    rng, (height, width) = scene.rng, scene.size
    crowns = [
        _draw_crown(
            rng, rng.uniform(*_BETEL_RADII), fronds=int(rng.integers(8, 12)), slimness=0.085
        )
        for _ in range(_CROWN_VARIANTS)
    ]
    plot = (height + 2 * OVERHANG) * (width + 2 * OVERHANG)
    remaining = _BETEL_SHARE * plot * rng.uniform(0.6, 1.4)
    chances = scene.noise(120) ** 2 * _BETEL_LIKING[scene.labels]
    photo, labels = _open_layers(scene)
    draw = ImageDraw.Draw(labels)
    planted = [(-1e6, -1e6)]
    for _ in range(plot // 50):
        x, y = (float(rng.uniform(-OVERHANG, size + OVERHANG)) for size in (width, height))
        crown = crowns[int(rng.integers(len(crowns)))]
        crowded = min((x - a) ** 2 + (y - b) ** 2 for a, b in planted) < _BETEL_DISTANCE**2
        if crowded or value_at(chances, x, y) < rng.random():
            continue
        if remaining < _polygon_area(crown.outline) * rng.random():
            break
        planted.append((x, y))
        shade_x, shade_y = x + 9 * scene.sun[0], y + 9 * scene.sun[1]
        _paste(photo, crown, shade_x, shade_y, opacity=0.5, color=SHADE_GREEN)
        _paste(photo, crown, x, y)
        draw.polygon([(x + a, y + b) for a, b in crown.outline], fill=BETEL)
        remaining -= _polygon_area(crown.outline)
    _close_layers(scene, photo, labels)


def _open_layers(scene: Scene) -> tuple[Image.Image, Image.Image]:
    photo = np.clip(scene.image + np.float32(0.5), 0, 255).astype(np.uint8)
    return Image.fromarray(photo), Image.fromarray(scene.labels)


def _close_layers(scene: Scene, photo: Image.Image, labels: Image.Image) -> None:
    scene.image = np.asarray(photo, np.float32)
    scene.labels = np.array(labels)


def _draw_crown(rng: np.random.Generator, radius: float, fronds: int, slimness: float) -> _Crown:
    """Draws tapering fronds around a trunk, each with a lit and a shaded half."""
    center = math.ceil(radius) + 1
    size = 2 * center * _SUPERSAMPLING
    base = _pick_color(rng, _CROWN_GREENS)
    color = Image.new("RGB", (size, size), _whole(base))
    cover = Image.new("L", (size, size))
    painters = ImageDraw.Draw(color), ImageDraw.Draw(cover)
    outline: list[Point] = []
    for frond in range(fronds):
        turn = (frond + rng.uniform(-0.3, 0.3)) / fronds
        length = radius * rng.uniform(0.78, 1.0)
        brightness = rng.uniform(0.75, 1.15)
        for side, light in ((-1, 0.82), (1, 1.15)):
            leaf = _leaf(center, turn, length, side * slimness * radius)
            painters[0].polygon(leaf, fill=_whole(base * brightness * light))
            painters[1].polygon(leaf, fill=255)
        tip, notch = direction(turn), direction(turn + 0.5 / fronds)
        outline.append((tip[0] * length, tip[1] * length))
        outline.append((notch[0] * 0.72 * radius, notch[1] * 0.72 * radius))
    return _Crown(color.reduce(_SUPERSAMPLING), cover.reduce(_SUPERSAMPLING), tuple(outline))


def _leaf(center: float, turn: float, length: float, bulge: float) -> list[Point]:
    """One half of a frond as a polygon in supersampled pixels: trunk, bulge, tip."""
    axis = direction(turn)
    knots = ((0.0, 0.0), (0.3 * length, 0.7 * bulge), (0.6 * length, bulge), (length, 0.0))
    return [
        (
            _SUPERSAMPLING * (center + along * axis[0] - across * axis[1]),
            _SUPERSAMPLING * (center + along * axis[1] + across * axis[0]),
        )
        for along, across in knots
    ]


def _whole(color: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in np.clip(color, 0, 255))
    return red, green, blue


def _polygon_area(points: Sequence[Point]) -> float:
    ends = (*points[1:], points[0])
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, ends, strict=True))) / 2


def _paste(
    photo: Image.Image,
    crown: _Crown,
    x: float,
    y: float,
    opacity: float = 1.0,
    color: tuple[int, int, int] | None = None,
) -> None:
    """Puts a crown, or its shadow in one colour, with the trunk at (x, y)."""
    corner = (round(x) - crown.cover.width // 2, round(y) - crown.cover.height // 2)
    if color is None:
        photo.paste(crown.color, corner, crown.cover)
    else:
        cover = crown.cover.point(lambda value: value * opacity)
        photo.paste(color, (*corner, corner[0] + cover.width, corner[1] + cover.height), cover)


def _pick_color(rng: np.random.Generator, colors: Sequence[Color]) -> np.ndarray:
    """Draws a colour between the first and the last one, float32 [3]."""
    return lerp(colors[0], colors[-1], np.float32(rng.random())).reshape(3)
