"""The ground of a synthetic plantation: fields and their use, yards, roads and ponds.

Labels come first (``survey``, ``lay_yards``, ``lay_roads``, ``dig_ponds``), then the paint
(``paint_ground``, ``paint_wheel_tracks``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ignite_salak.classes import BACKGROUND
from ignite_salak.data.scene import (
    BARE,
    ROAD,
    SETTLEMENT,
    SHADE_GREEN,
    SNAKE,
    WATER,
    Point,
    Scene,
    direction,
    fractal,
    lerp,
    local_axes,
)

__all__ = [
    "dig_ponds",
    "lay_roads",
    "lay_yards",
    "paint_ground",
    "paint_wheel_tracks",
    "survey",
]

_UNUSED = 255

_ZONE_SHARES = {SETTLEMENT: 0.295, SNAKE: 0.455, BACKGROUND: 0.195, BARE: 0.050}
_ZONE_SPREAD = 0.3
_PARCEL = 84
"""Side of a field."""
_YARD_SHARE = 0.34
"""Part of a settlement that is bare land before houses stand on it."""
_ROAD_SHARE = 0.0295
_POND_CHANCE = 0.88
_POND_SHARES = (0.0030, 0.0085)
_POND_RADII = (9.0, 24.0)
_POND_MIN_AREA = 9.0
_ROAD_WIDTHS = (5, 10)
_VERGE = 4

_DARK_GREEN = (62, 82, 42)
_LIGHT_GREEN = (118, 132, 72)
_DRY_BROWN = (128, 112, 78)
_UNDERSTOREY = ((34, 40, 26), (74, 68, 46))
_SOILS = ((122, 96, 72), (164, 134, 104))
_ASPHALT = (138, 132, 124)
_POND_COLORS = ((58, 68, 46), (104, 98, 70))


def survey(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Divides the land into fields, gives each its use, and hangs the sun."""
    parcels = _draw_parcels(rng, height, width)
    zones = _assign_zones(rng, parcels)
    labels = np.where(zones == SETTLEMENT, BACKGROUND, zones).astype(np.uint8)
    image = np.zeros((height, width, 3), np.float32)
    return Scene(rng, parcels, zones, labels, image, direction(rng.random()))


def _draw_parcels(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Fields int32 [H, W]: Voronoi cells of a jittered grid with gently bent borders."""
    bends = [fractal(rng, height, width, (45, 12)) for _ in range(2)]
    y = np.arange(height, dtype=np.float32)[:, None] + 26 * (bends[0] - np.float32(0.5))
    x = np.arange(width, dtype=np.float32)[None, :] + 26 * (bends[1] - np.float32(0.5))
    nearest = np.full((height, width), np.inf, np.float32)
    parcels = np.zeros((height, width), np.int32)
    phase = rng.uniform(-_PARCEL / 2, _PARCEL / 2, 2)
    rows, columns = (size // _PARCEL + 3 for size in (height, width))
    for parcel, jitter in enumerate(rng.uniform(0.1, 0.9, (rows * columns, 2))):
        center = (np.array(divmod(parcel, columns)) - 1 + jitter) * _PARCEL + phase
        reach = [slice(max(0, int(c) - 2 * _PARCEL), max(0, int(c) + 2 * _PARCEL)) for c in center]
        window = (reach[0], reach[1])
        distance = (y[window] - np.float32(center[0])) ** 2
        distance += (x[window] - np.float32(center[1])) ** 2
        closer = distance < nearest[window]
        nearest[window][closer] = distance[closer]
        parcels[window][closer] = parcel
    return parcels


def _assign_zones(rng: np.random.Generator, parcels: np.ndarray) -> np.ndarray:
    """Uses uint8 [H, W] of the fields: a village grown from one field, then by need."""
    areas = np.bincount(parcels.ravel())
    present = rng.permutation(np.flatnonzero(areas))
    spread = rng.uniform(1 - _ZONE_SPREAD, 1 + _ZONE_SPREAD, len(_ZONE_SHARES))
    wanted = np.array(list(_ZONE_SHARES.values())) * spread
    needs = dict(zip(_ZONE_SHARES, wanted / wanted.sum() * parcels.size, strict=True))
    uses = np.full(len(areas), _UNUSED, np.uint8)
    for parcel in _nearest_first(parcels, present):
        if needs[SETTLEMENT] < rng.random() * areas[parcel]:
            break
        uses[parcel] = SETTLEMENT
        needs[SETTLEMENT] -= areas[parcel]
    for parcel in present[uses[present] == _UNUSED]:
        neediest = max((SNAKE, BACKGROUND, BARE), key=lambda zone: needs[zone])
        uses[parcel] = neediest
        needs[neediest] -= areas[parcel]
    return uses[parcels]


def _nearest_first(parcels: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Sorts parcel numbers by the distance of their centre from that of the first."""
    rows, columns = np.indices(parcels.shape)
    counts = np.bincount(parcels.ravel())[present]
    y, x = (
        np.bincount(parcels.ravel(), axis.ravel())[present] / counts for axis in (rows, columns)
    )
    return present[np.argsort((y - y[0]) ** 2 + (x - x[0]) ** 2, kind="stable")]


def lay_yards(scene: Scene) -> None:
    """Labels part of the settlement as bare land."""
    village = scene.zones == SETTLEMENT
    if village.any():
        field = scene.noise(34, 12)
        scene.labels[village & (field > np.quantile(field[village], 1 - _YARD_SHARE))] = BARE


def lay_roads(scene: Scene) -> list[tuple[list[Point], int]]:
    """Draws roads with green verges and returns their courses and widths."""
    height, width = scene.size
    remaining = _ROAD_SHARE * height * width
    widest = max(4, round(1.3 * _ROAD_SHARE * math.sqrt(height * width)))
    roads: list[tuple[list[Point], int]] = []
    heading = scene.rng.random()
    while True:
        broad = min(widest, int(scene.rng.integers(*_ROAD_WIDTHS, endpoint=True)))
        course = _draw_course(scene, turn=heading + 0.25 * len(roads) + 0.1 * scene.rng.random())
        area = broad * math.sqrt(height * width)
        if roads and remaining < area * scene.rng.random():
            break
        roads.append((course, broad))
        remaining -= area
    _stroke(scene, [(course, broad + 2 * _VERGE) for course, broad in roads], BACKGROUND)
    _stroke(scene, roads, ROAD)
    return roads


def _draw_course(scene: Scene, turn: float) -> list[Point]:
    """A gently bent curve (cubic Bezier) through the photo, from beyond one edge to another."""
    rng, (height, width) = scene.rng, scene.size
    reach = 0.75 * math.hypot(height, width)
    axis = direction(turn)
    x, y = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.3, 0.7)
    along = np.array([-1.0, -0.35, 0.35, 1.0]) * reach
    across = rng.uniform(-0.3, 0.3, 4) * reach * np.array([0.6, 1.0, 1.0, 0.6])
    knots = [
        (x + a * axis[0] - c * axis[1], y + a * axis[1] + c * axis[0])
        for a, c in zip(along, across, strict=True)
    ]
    t = np.linspace(0, 1, 64)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    points = (weights[..., None] * np.array(knots)).sum(axis=1)
    return [(float(x), float(y)) for x, y in points]


def _stroke(scene: Scene, lines: Sequence[tuple[list[Point], int]], label: int) -> None:
    canvas = Image.fromarray(scene.labels)
    draw = ImageDraw.Draw(canvas)
    for course, broad in lines:
        draw.line(course, fill=label, width=broad, joint="curve")
    scene.labels = np.array(canvas)


def dig_ponds(scene: Scene) -> None:
    """Labels the ponds that most photos have."""
    height, width = scene.size
    if scene.rng.random() > _POND_CHANCE:
        return
    remaining = scene.rng.uniform(*_POND_SHARES) * height * width
    while remaining > _POND_MIN_AREA:
        radius = min(math.sqrt(remaining / math.pi), scene.rng.uniform(*_POND_RADII))
        _dig_pond(scene, radius)
        remaining -= math.pi * radius**2


def _dig_pond(scene: Scene, radius: float) -> None:
    """Labels a rounded rectangle or oval with a green bank, away from roads where possible."""
    rng, (height, width) = scene.rng, scene.size
    for _ in range(60):
        x, y = (float(rng.uniform(radius, size - radius)) for size in (width, height))
        window = scene.window(x, y, 1.6 * radius)
        free = np.isin(scene.labels[window], (BACKGROUND, BARE))
        if free.mean() > 0.9:
            break
    stretch = rng.uniform(1.0, 1.35)
    along, across = local_axes(window, x, y, direction(rng.random()))
    power = int(rng.choice((2, 4, 6)))
    distance = np.abs(along / (radius * stretch)) ** power
    distance += np.abs(across * stretch / radius) ** power
    distance *= 1 + 0.5 * scene.noise(18)[window]
    area = scene.labels[window]
    dug = area != ROAD
    area[dug & (distance < 1 + 0.25 * power)] = BACKGROUND
    area[dug & (distance < 1)] = WATER


# ---- surfaces ----------------------------------------------------------------------------------


def paint_ground(scene: Scene) -> None:
    """Paints every surface that lies flat, then the tint of each field."""
    painters: dict[int, Callable[[Scene], np.ndarray]] = {
        BACKGROUND: _vegetation,
        SNAKE: _understorey,
        BARE: _soil,
        ROAD: _road_surface,
        WATER: _water,
    }
    for label, painter in painters.items():
        surface = painter(scene)
        mask = scene.labels == label
        scene.image[mask] = surface[mask]
    seamless = np.isin(scene.labels, (ROAD, WATER))
    tints = scene.rng.uniform(0.88, 1.1, (int(scene.parcels.max()) + 1, 1)).astype(np.float32)
    scene.image *= np.where(seamless[..., None], np.float32(1), tints[scene.parcels])


def _vegetation(scene: Scene) -> np.ndarray:
    """Grass, shrubs, dry patches and their shadows, float32 [H, W, 3]."""
    height = scene.noise(22, 11, 5)
    rough = scene.noise(60)
    color = lerp(_DARK_GREEN, _LIGHT_GREEN, scene.noise(48, 16, 5))
    dry = np.clip(3 * scene.noise(56, 20, 7) - np.float32(1.5), 0, 1)
    color += (lerp(_DRY_BROWN, _DRY_BROWN, dry) - color) * dry[..., None]
    shade = np.clip((np.float32(0.42) - height) * 5, 0, 1) * rough
    color += (lerp(SHADE_GREEN, SHADE_GREEN, shade) - color) * shade[..., None]
    grain = scene.rng.random(height.shape, np.float32) - np.float32(0.5)
    return color * (1 + (0.3 + 2.5 * rough) * _relief(height) + 0.22 * grain)[..., None]


def _understorey(scene: Scene) -> np.ndarray:
    return lerp(*_UNDERSTOREY, scene.noise(20, 5))


def _soil(scene: Scene) -> np.ndarray:
    """Grainy soil with furrows in some fields, float32 [H, W, 3]."""
    rng, (height, width) = scene.rng, scene.size
    turns = rng.random(int(scene.parcels.max()) + 1)
    axes = np.array([direction(turn) for turn in turns], np.float32)[scene.parcels]
    depths = (rng.random(len(turns)).astype(np.float32) * 0.2 * (turns < 0.7))[scene.parcels]
    depths[scene.zones == SETTLEMENT] = 0
    rows, columns = np.ogrid[:height, :width]
    position = (columns * axes[..., 0] + rows * axes[..., 1]) / 7 + scene.noise(40)
    furrows = np.abs(position % 1 - np.float32(0.5)) * 4 - 1
    grain = rng.random((height, width), np.float32) - np.float32(0.5)
    color = lerp(*_SOILS, scene.noise(40, 9, 3))
    return color * (1 + depths * furrows + 0.16 * grain)[..., None]


def _road_surface(scene: Scene) -> np.ndarray:
    """Smooth earth or old asphalt, one mixture a photo, float32 [H, W, 3]."""
    earth = lerp(*_SOILS, scene.noise(50, 14))
    greyness = np.float32(scene.rng.random())
    return earth + (np.asarray(_ASPHALT, np.float32) - earth) * greyness


def _water(scene: Scene) -> np.ndarray:
    murk = np.clip(scene.noise(90) * 0.6 + np.float32(scene.rng.uniform(0, 0.4)), 0, 1)
    return lerp(*_POND_COLORS, murk)


def paint_wheel_tracks(scene: Scene, roads: Sequence[tuple[list[Point], int]]) -> None:
    """Brightens the middle of the roads that ``lay_roads`` returned."""
    canvas = Image.new("L", scene.size[::-1])
    draw = ImageDraw.Draw(canvas)
    for course, broad in roads:
        draw.line(course, fill=255, width=max(2, broad - 3), joint="curve")
        draw.line(course, fill=110, width=max(1, broad // 3), joint="curve")
    tracks = np.asarray(canvas, np.float32) / 255 * (scene.labels == ROAD)
    scene.image *= (1 + 0.13 * tracks)[..., None]


def _relief(field: np.ndarray) -> np.ndarray:
    """Slope of a field towards the upper left, float32 [H, W]: lit and shaded sides of bumps."""
    padded = np.pad(field, ((1, 0), (1, 0)), mode="edge")
    return field - padded[:-1, :-1]
