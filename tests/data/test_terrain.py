import numpy as np
import pytest

from ignite_salak.classes import BACKGROUND
from ignite_salak.data.scene import BARE, ROAD, SETTLEMENT, SNAKE, WATER, value_at
from ignite_salak.data.terrain import (
    dig_ponds,
    lay_roads,
    lay_yards,
    paint_ground,
    paint_wheel_tracks,
    survey,
)

SEEDS = range(5)


def land(seed, height=200, width=160):
    return survey(np.random.default_rng(seed), height, width)


@pytest.mark.parametrize("seed", SEEDS)
def test_survey_gives_every_field_one_use(seed):
    scene = land(seed)
    assert scene.size == (200, 160)
    for parcel in np.unique(scene.parcels):
        assert len(np.unique(scene.zones[scene.parcels == parcel])) == 1
    assert np.isin(scene.zones, (BACKGROUND, SNAKE, BARE, SETTLEMENT)).all()
    assert np.array_equal(scene.labels, np.where(scene.zones == SETTLEMENT, 0, scene.zones))
    assert not scene.image.any()
    assert np.hypot(*scene.sun) == pytest.approx(1)


def test_yards_are_a_third_of_the_settlement():
    scene = land(0)
    scene.zones[:] = BACKGROUND
    scene.zones[:100] = SETTLEMENT
    scene.labels[:] = BACKGROUND
    lay_yards(scene)
    assert (scene.labels[:100] == BARE).mean() == pytest.approx(0.34, abs=0.01)
    assert not scene.labels[100:].any()


def test_no_yards_without_a_settlement():
    scene = land(0)
    scene.zones[:] = SNAKE
    before = scene.labels.copy()
    lay_yards(scene)
    assert np.array_equal(scene.labels, before)


@pytest.mark.parametrize("seed", SEEDS)
def test_roads_follow_their_courses_between_green_verges(seed):
    scene = land(seed)
    roads = lay_roads(scene)
    height, width = scene.size
    inside = [
        (x, y) for course, _ in roads for x, y in course if 0 <= x < width and 0 <= y < height
    ]
    assert inside
    assert all(value_at(scene.labels, x, y) == ROAD for x, y in inside)
    road = scene.labels == ROAD
    for step in (-2, 2):
        for axis in (0, 1):
            near = np.roll(road, step, axis)
            near[[0, 1, -2, -1]] = near[:, [0, 1, -2, -1]] = False
            assert np.isin(scene.labels[near], (ROAD, BACKGROUND)).mean() > 0.98


def test_ponds_leave_roads_alone_and_most_photos_have_some():
    wet = 0
    for seed in range(30):
        scene = land(seed, 64, 64)
        lay_roads(scene)
        road = scene.labels == ROAD
        dig_ponds(scene)
        assert np.array_equal(scene.labels == ROAD, road)
        assert (scene.labels == WATER).mean() < 0.03
        wet += bool((scene.labels == WATER).any())
    assert 18 < wet < 30


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pixel_of_the_ground_is_painted(seed):
    scene = land(seed)
    roads = lay_roads(scene)
    paint_ground(scene)
    assert scene.image.dtype == np.float32
    assert scene.image.min() > 0
    assert scene.image.max() < 255
    before = scene.image.copy()
    paint_wheel_tracks(scene, roads)
    brightened = scene.image / before
    assert (brightened[scene.labels != ROAD] == 1).all()
    assert brightened.min() == 1
    assert 1.05 < brightened[scene.labels == ROAD].max() < 1.131


def test_ground_has_the_colours_of_its_classes():
    scene = land(0)
    scene.labels[:] = np.repeat((BACKGROUND, SNAKE, BARE, ROAD), 50)[:, None]
    paint_ground(scene)
    vegetation, understorey, soil, road = scene.image.reshape(4, -1, 3).mean(axis=1)
    assert vegetation[1] > vegetation[0] > vegetation[2]
    assert understorey.sum() < vegetation.sum() < min(soil.sum(), road.sum())
    assert soil[0] > soil[1] > soil[2]
