import numpy as np
import pytest

from ignite_salak.data.houses import build_houses
from ignite_salak.data.scene import BUILDING, ROAD, SETTLEMENT, WATER, Scene, direction

GROUND = 100


def village(seed, size=200):
    """Nothing but settlement on flat grey ground."""
    rng = np.random.default_rng(seed)
    parcels, zones = np.zeros((size, size), np.int32), np.full((size, size), SETTLEMENT, np.uint8)
    image = np.full((size, size, 3), GROUND, np.float32)
    return Scene(rng, parcels, zones, np.zeros_like(zones), image, direction(rng.random()))


@pytest.mark.parametrize("seed", range(5))
def test_about_half_of_a_settlement_lies_under_roofs(seed):
    scene = village(seed)
    build_houses(scene)
    assert 0.35 < (scene.labels == BUILDING).mean() < 0.65
    assert set(np.unique(scene.labels)) == {0, BUILDING}


def test_roofs_are_painted_and_shadows_darken_the_ground_by_steps():
    scene = village(0)
    build_houses(scene)
    open_ground = scene.image[scene.labels != BUILDING]
    steps = np.log(open_ground / GROUND) / np.log(0.8)
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    assert steps.min() == 0
    assert steps.max() > 2.9
    assert (scene.image[scene.labels == BUILDING] != GROUND).mean() > 0.99


def test_no_houses_on_roads_and_ponds():
    scene = village(1)
    scene.labels[90:100] = ROAD
    scene.labels[:, 40:60] = WATER
    before = scene.labels.copy()
    build_houses(scene)
    built = scene.labels == BUILDING
    assert built.any()
    assert np.array_equal(scene.labels[~built], before[~built])
    assert not before[built].any()


def test_no_houses_without_a_settlement():
    scene = village(2)
    scene.zones[:] = 0
    build_houses(scene)
    assert not scene.labels.any()
    assert (scene.image == GROUND).all()
