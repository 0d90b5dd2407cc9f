"""Small pictures of large maps."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ignite_salak.inference.maps import Block
from ignite_salak.inference.previews import Preview


def fill(preview, classes, image):
    for top in range(0, len(classes), 512):
        rows = slice(top, top + 512)
        confidence = np.zeros_like(classes[rows])
        preview.add(Block(top, classes[rows], confidence, image[:, rows]))


def test_small_maps_are_mixed_half_and_half(classes):
    labels = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
    image = np.full((3, 2, 3), 100, np.uint8)
    preview = Preview(2, 3)
    fill(preview, labels, image)
    drawn = preview.draw(classes)
    assert drawn[0, 1].tolist() == [(100 + c) // 2 for c in classes.colors[1]]
    assert drawn[0, 2].tolist() == [(100 + c) // 2 for c in classes.colors[2]]
    assert len(set(drawn[1, 2].tolist())) == 1  # a grey stripe


@pytest.mark.parametrize(("size", "factor"), [((60, 64), 1), ((65, 40), 2), ((1100, 250), 32)])
def test_large_maps_are_reduced_by_a_power_of_two(classes, size, factor):
    labels = np.zeros(size, np.uint8)
    labels[:, : size[1] // 2] = 1
    ramp = np.linspace(0, 255, size[0])[:, None].repeat(size[1], 1).astype(np.uint8)
    preview = Preview(*size, longest=64)
    fill(preview, labels, np.stack([ramp] * 3))
    drawn = preview.draw(classes)
    assert preview.factor == factor
    assert drawn.shape == (-(-size[0] // factor), -(-size[1] // factor), 3)
    expected = (ramp[: factor * 3].mean(axis=0).astype(int)[0] + classes.colors[1][0]) // 2
    assert abs(int(drawn[:3, 0, 0].mean()) - expected) <= 2
    assert (np.diff(drawn[:, -1, 0].astype(int)) >= 0).all()


def test_it_keeps_no_more_than_its_own_pixels():
    labels, image = np.zeros((512, 1024), np.uint8), np.zeros((3, 512, 1024), np.uint8)
    preview = Preview(20 * 512, 1024, longest=256)
    tracemalloc.start()
    for top in range(0, 20 * 512, 512):
        preview.add(Block(top, labels, labels, image))
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 256 * 256 * 4


def test_it_is_saved_as_jpeg(classes, tmp_path):
    preview = Preview(20, 30)
    fill(preview, np.zeros((20, 30), np.uint8), np.full((3, 20, 30), 80, np.uint8))
    preview.save(tmp_path / "a.jpg", classes)
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))
        assert abs(np.asarray(image).astype(int) - 40).max() < 3


def test_what_is_too_large_is_refused():
    with pytest.raises(ValueError, match="too large"):
        Preview(3_000_000, 10)
