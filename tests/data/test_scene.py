import numpy as np
import pytest

from ignite_salak.data.plantation import SALAK_CLASSES
from ignite_salak.data.scene import (
    BARE,
    BETEL,
    BUILDING,
    OVERHANG,
    ROAD,
    SETTLEMENT,
    SNAKE,
    WATER,
    Scene,
    direction,
    fractal,
    lerp,
    local_axes,
    value_at,
)


def empty(height=20, width=30, seed=0):
    flat = np.zeros((height, width), np.uint8)
    image = np.zeros((height, width, 3), np.float32)
    return Scene(np.random.default_rng(seed), flat.astype(np.int32), flat, flat, image, (1.0, 0.0))


def test_indices_name_the_classes_of_the_plantation():
    names = [SALAK_CLASSES.names[label] for label in (WATER, BUILDING, ROAD, BETEL, SNAKE, BARE)]
    assert names == [
        "Badan Air",
        "Bangunan",
        "Jalan",
        "Pohon Berinang",
        "Snake Fruit",
        "Tanah Terbuka",
    ]
    assert SETTLEMENT not in range(SALAK_CLASSES.num_classes)


def test_direction_is_a_rounded_unit_vector():
    assert [direction(turn) for turn in (0, 0.25, 0.5)] == [(1, 0), (0, 1), (-1, 0)]
    assert direction(0.125) == (0.707107, 0.707107)


def test_lerp_mixes_two_colours():
    mixed = lerp((0, 100, 200), (100, 100, 0), np.array([0.0, 0.25, 1.0], np.float32))
    assert mixed.dtype == np.float32
    assert mixed.tolist() == [[0, 100, 200], [25, 100, 150], [100, 100, 0]]


def test_value_at_takes_the_nearest_edge_outside():
    field = np.array([[1, 2, 3], [4, 5, 6]])
    points = [(0, 0), (1.9, 0.9), (2, 1), (-9, 5), (7, -1)]
    assert [value_at(field, x, y) for x, y in points] == [1, 2, 6, 4, 3]


def test_local_axes_turn_with_the_axis():
    window = (slice(2, 4), slice(5, 8))
    along, across = local_axes(window, 5, 2, (0.0, 1.0))
    assert np.broadcast_to(along, (2, 3)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.broadcast_to(across, (2, 3)).tolist() == [[0, -1, -2], [0, -1, -2]]


@pytest.mark.parametrize(
    ("point", "rows", "columns"),
    [
        ((10, 12), (7, 19), (5, 17)),
        ((0, 0), (0, 7), (0, 7)),
        ((29, 19), (14, 20), (24, 30)),
        ((-40, 10), (5, 17), (0, 0)),
    ],
)
def test_window_stays_in_the_photo(point, rows, columns):
    assert empty().window(*point, 5) == (slice(*rows), slice(*columns))


def test_noise_is_smooth_and_seeded():
    field = fractal(np.random.default_rng(3), 90, 120, (30, 10))
    assert (field.shape, field.dtype) == ((90, 120), np.float32)
    assert field.min() >= 0
    assert field.max() <= 1
    assert field.std() > 0.1
    assert np.abs(np.diff(field, axis=0)).max() < 0.2
    assert np.array_equal(field, empty(90, 120, seed=3).noise(30, 10))
    assert not np.array_equal(field, empty(90, 120, seed=4).noise(30, 10))


def test_grid_covers_the_photo_and_its_surroundings_in_random_order():
    points = np.array(list(empty(100, 60).grid((10, 20), (1.0, 0.0), jitter=0.0)))
    steps = [np.unique(np.round(np.diff(np.unique(axis)), 6)) for axis in points.T]
    assert [step.tolist() for step in steps] == [[10], [20]]
    assert len(points) == len(np.unique(points, axis=0))
    for axis, size, pitch in zip(points.T, (60, 100), (10, 20), strict=True):
        assert -OVERHANG < axis.min() < pitch - OVERHANG
        assert size + OVERHANG - pitch < axis.max() < size + OVERHANG
    assert points.tolist() != sorted(points.tolist(), key=lambda point: point[::-1])
