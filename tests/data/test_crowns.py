import numpy as np
import pytest

from ignite_salak.data.crowns import plant_betel, plant_snake_fruit
from ignite_salak.data.plantation import render_photo
from ignite_salak.data.scene import BARE, BETEL, BUILDING, ROAD, SNAKE, WATER, Scene, direction

GROUND = 200


def field(seed, label, size=160):
    """One class on flat grey ground."""
    rng = np.random.default_rng(seed)
    parcels, labels = np.zeros((size, size), np.int32), np.full((size, size), label, np.uint8)
    image = np.full((size, size, 3), GROUND, np.float32)
    return Scene(rng, parcels, labels.copy(), labels, image, direction(rng.random()))


@pytest.mark.parametrize("plant", [plant_snake_fruit, plant_betel])
@pytest.mark.parametrize("label", [WATER, BUILDING, ROAD])
def test_nothing_grows_on_water_houses_and_roads(plant, label):
    scene = field(0, label)
    plant(scene)
    assert (scene.labels == label).all()
    assert (scene.image == GROUND).all()


def test_snake_fruit_fills_its_fields_and_rounds_their_edges():
    scene = field(1, BARE)
    scene.labels[:, 80:] = SNAKE
    scene.labels[60:70] = ROAD
    plant_snake_fruit(scene)
    assert (scene.labels[60:70] == ROAD).all()
    assert (scene.image[:, 100:] < GROUND).mean() > 0.5
    assert (scene.image[:, :60] == GROUND).all()
    overgrown = np.delete(scene.labels[:, 60:80] == SNAKE, slice(60, 70), axis=0)
    assert 0.05 < overgrown.mean() < 0.5
    assert (scene.labels[:, :60] != SNAKE).all()


@pytest.mark.parametrize("seed", range(3))
def test_betel_palms_stand_apart_on_what_grows(seed):
    scene = field(seed, 0, size=300)
    plant_betel(scene)
    assert set(np.unique(scene.labels)) == {0, BETEL}
    assert 0.01 < (scene.labels == BETEL).mean() < 0.09
    crown = scene.image[scene.labels == BETEL]
    assert (crown < GROUND).any(axis=1).mean() > 0.5


def test_neighbourhood_tells_crowns_from_smooth_ground():
    photos = [render_photo(512, 512, seed) for seed in range(4)]

    def roughness(label):
        values = []
        for image, labels in photos:
            grey = image.mean(axis=2)
            blocks = grey.reshape(64, 8, 64, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
            kinds = labels.reshape(64, 8, 64, 8).transpose(0, 2, 1, 3).reshape(-1, 64)
            pure = (kinds == label).all(axis=1)
            values.extend(blocks[pure].std(axis=1) / blocks[pure].mean(axis=1))
        return np.median(values)

    background, snake_fruit, bare = roughness(0), roughness(5), roughness(6)
    assert snake_fruit > 1.5 * background
    assert background > bare
