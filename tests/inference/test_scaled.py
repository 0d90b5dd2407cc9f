"""A fixed scale, whatever the size of the window."""

import pytest
import torch
from torch import nn

from ignite_salak.inference.scaled import AtScale


class Seen:
    """Answers with the image itself and remembers the shapes that the network got."""

    def __init__(self):
        self.shapes = []

    def __call__(self, model, images):
        self.shapes.append(tuple(images.shape[-2:]))
        return torch.cat([images[:, :1], 1 - images[:, :1]], dim=1)


@pytest.mark.parametrize(
    ("scale", "size", "inner"),
    [
        (0.5, (64, 64), (32, 32)),
        (0.5, (10, 64), (5, 32)),
        (2.0, (8, 6), (16, 12)),
        (0.1, (3, 20), (1, 2)),
    ],
)
def test_every_side_is_scaled_by_the_same_factor_and_the_answer_is_not(scale, size, inner):
    seen = Seen()
    found = AtScale(scale, seen)(nn.Identity(), torch.rand(2, 3, *size))
    assert seen.shapes == [inner]
    assert found.shape == (2, 2, *size)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, *size), atol=1e-6)


def test_scale_one_changes_nothing():
    images = torch.rand(1, 3, 9, 7)
    assert torch.equal(AtScale(1.0, Seen())(nn.Identity(), images)[:, :1], images[:, :1])


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_no_scale_is_refused(scale):
    with pytest.raises(ValueError, match=f"--scale {scale} is not a number above 0"):
        AtScale(scale)
