"""The houses of a synthetic plantation, with roofs and shadows."""

from __future__ import annotations

import math

import numpy as np

from ignite_salak.data.scene import (
    BUILDING,
    ROAD,
    SETTLEMENT,
    WATER,
    Point,
    Scene,
    direction,
    local_axes,
    value_at,
)

__all__ = ["build_houses"]

_BUILDING_SHARE = 0.54
"""Part of a settlement under roofs."""
_HOUSE_PITCH = (44, 34)
_HOUSE_LENGTHS = (28.0, 46.0)
_HOUSE_WIDTHS = (20.0, 33.0)
_ROOFS = ((152, 92, 68), (130, 88, 70), (120, 100, 82), (150, 145, 138), (108, 104, 100))
_SHADOW_STEP = np.float32(0.8)
"""Brightness left by one of three overlaid shadows."""


def build_houses(scene: Scene) -> None:
    """Fills the settlement with houses in loose rows until enough of it lies under roofs."""
    village = scene.zones == SETTLEMENT
    remaining = _BUILDING_SHARE * float(np.count_nonzero(village))
    axis = direction(scene.rng.random())
    for x, y in scene.grid(_HOUSE_PITCH, axis, jitter=3.0):
        if remaining <= 0:
            return
        if value_at(village, x, y):
            half = (
                scene.rng.uniform(*_HOUSE_LENGTHS) / 2,
                scene.rng.uniform(*_HOUSE_WIDTHS) / 2,
            )
            remaining -= _build_house(scene, x, y, axis, half)


def _build_house(scene: Scene, x: float, y: float, axis: Point, half: tuple[float, float]) -> int:
    """Draws a house with its shadow unless something is in the way; returns its pixels."""
    window = scene.window(x, y, math.hypot(*half) + 9)
    along, across = local_axes(window, x, y, axis)
    taken = np.isin(scene.labels[window], (ROAD, WATER, BUILDING))
    if np.any(taken & (np.abs(along) < half[0] + 1) & (np.abs(across) < half[1] + 1)):
        return 0
    roof = (np.abs(along) <= half[0]) & (np.abs(across) <= half[1])
    for step in (2, 4, 6):
        shift = (x + step * scene.sun[0], y + step * scene.sun[1])
        u, v = local_axes(window, *shift, axis)
        shadow = (np.abs(u) <= half[0]) & (np.abs(v) <= half[1])
        scene.image[window][shadow & (scene.labels[window] != BUILDING)] *= _SHADOW_STEP
    scene.labels[window][roof] = BUILDING
    scene.image[window][roof] = _roof(scene, along, across, axis, half)[roof]
    return int(np.count_nonzero(roof))


def _roof(
    scene: Scene,
    along: np.ndarray,
    across: np.ndarray,
    axis: Point,
    half: tuple[float, float],
) -> np.ndarray:
    """Gable or hip roof with ridge and rows of tiles, float32 [h, w, 3]."""
    rng = scene.rng
    light = -0.16 * (scene.sun[1] * axis[0] - scene.sun[0] * axis[1])
    end_light = -0.16 * (scene.sun[0] * axis[0] + scene.sun[1] * axis[1])
    shade = 1 + np.where(across > 0, light, -light)
    to_hip = np.abs(along) - (half[0] - half[1])
    if rng.random() < 0.5:
        hip = to_hip > np.abs(across)
        shade = np.where(hip, 1 + np.where(along > 0, end_light, -end_light), shade)
    tiles = across if rng.random() < 0.6 else along
    shade = shade * np.where(np.floor(tiles) % 4 < 1, rng.uniform(0.82, 0.93), 1)
    shade = np.where((np.abs(across) < 0.9) & (to_hip < 0), 1.18, shade)
    shade = shade * (1 + 0.12 * (rng.random(shade.shape) - 0.5))
    base = np.asarray(_ROOFS[rng.integers(len(_ROOFS))]) + rng.uniform(-14, 14)
    return (base * shade[..., None]).astype(np.float32)
