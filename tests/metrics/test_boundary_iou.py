"""The band along the borders, against hand-drawn ones and an independent definition."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_cdt

from ignite_salak.metrics import BoundaryBandIoU, ClassIoU, boundary_band

NAMES = ("background", "water", "road")


def drawn(*rows):
    return torch.tensor([[[int(c) if c != "." else 255 for c in row] for row in rows]])


def test_a_straight_border_gets_the_width_on_either_side():
    band = boundary_band(drawn("00000111", "00000111"), 2)
    assert band.int().tolist() == [[[0, 0, 0, 1, 1, 1, 1, 0]] * 2]


def test_the_distance_is_chebyshevs():
    target = torch.zeros(1, 7, 7, dtype=torch.uint8)
    target[0, 3, 3] = 2
    band = boundary_band(target, 2)[0]
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:6, 1:6] = True
    assert torch.equal(band, expected)


def test_ignored_pixels_are_in_no_band_and_make_no_border():
    assert not boundary_band(drawn("000..000", "........"), 3).any()
    # Classes on both sides of an ignored strip do see each other across it.
    band = boundary_band(drawn("0000..11"), 3)
    assert band.int().tolist() == [[[0, 0, 0, 1, 0, 0, 1, 0]]]


def test_the_edge_of_the_image_and_one_class_alone_make_no_border():
    assert not boundary_band(torch.full((2, 4, 4), 2), 3).any()
    assert not boundary_band(torch.full((1, 4, 4), 255), 1).any()


@pytest.mark.parametrize("width", [1, 3, 5])
def test_agrees_with_scipys_distances(width):
    generator = np.random.default_rng(width)
    coarse = generator.choice([0, 1, 2, 255], (1, 6, 7), p=[0.4, 0.3, 0.2, 0.1])
    target = coarse.repeat(8, axis=1).repeat(12, axis=2)
    expected = np.zeros(target.shape, bool)
    for label in range(3):
        others = (target != label) & (target != 255)
        near = distance_transform_cdt(~others[0], metric="chessboard") <= width
        expected[0] |= (target[0] == label) & near
    assert 0.1 < expected.mean() < 0.95
    assert np.array_equal(boundary_band(torch.from_numpy(target), width).numpy(), expected)


def test_hand_computed_scores_of_the_band():
    target = drawn("0000022222")
    pred = drawn("1000222222")  # wrong at the far left, and one pixel over the border
    whole, band = ClassIoU(NAMES), BoundaryBandIoU(NAMES, 2)
    for metric in (whole, band):
        metric.update((pred, target))
    assert band.compute()["accuracy"] == 3 / 4
    assert band.result["IoU/road"] == 2 / 3
    assert band.result["IoU/background"] == 1 / 2
    assert math.isnan(band.result["IoU/water"])
    assert band.result["mIoU"] == 2 / 3
    assert whole.compute()["accuracy"] == 8 / 10


def test_images_are_judged_one_by_one():
    target = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).long()
    metric = BoundaryBandIoU(NAMES)
    metric.update((target, target))
    assert metric.confusion.sum() == 0
    assert math.isnan(metric.compute()["mIoU"])


def test_label_errors_are_not_hidden():
    metric = BoundaryBandIoU(NAMES)
    metric.update((torch.zeros(1, 1, 2), torch.tensor([[[0, 7]]])))
    with pytest.raises(ValueError, match="target 7"):
        metric.compute()


@pytest.mark.parametrize("width", [0, -1])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match=f"--boundary-width {width}"):
        BoundaryBandIoU(NAMES, width)
