"""Images of another size than those of training."""

import pytest
import torch
from torch import nn

from ignite_salak.inference import AtInputSize
from ignite_salak.inference.resized import resize

SIZES = []


def by_brightness(model, images):
    """Probabilities that are the image itself and the rest."""
    SIZES.append(tuple(images.shape))
    return torch.cat([images[:, :1], 1 - images[:, :1]], dim=1)


@pytest.fixture(autouse=True)
def forget():
    SIZES.clear()


def test_the_network_sees_the_longer_side_at_its_size_and_the_answer_is_at_the_images():
    found = AtInputSize(8, by_brightness)(nn.Identity(), torch.rand(2, 3, 16, 12))
    assert SIZES == [(2, 3, 8, 6)]
    assert found.shape == (2, 2, 16, 12)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, 16, 12))


def test_smaller_images_are_enlarged_as_training_does():
    AtInputSize(8, by_brightness)(nn.Identity(), torch.rand(1, 3, 2, 4))
    assert SIZES == [(1, 3, 4, 8)]


def test_images_of_that_size_are_left_alone():
    images = torch.rand(1, 3, 8, 5)
    assert torch.equal(AtInputSize(8, by_brightness)(nn.Identity(), images)[:, :1], images[:, :1])


def test_a_very_narrow_image_keeps_a_pixel():
    AtInputSize(8, by_brightness)(nn.Identity(), torch.rand(1, 3, 1, 64))
    assert SIZES == [(1, 3, 1, 8)]


def test_reducing_averages_instead_of_dropping_pixels():
    stripes = torch.zeros(1, 3, 4, 64)
    stripes[..., ::4] = 1.0
    reduced = resize(stripes, (1, 16))
    # Without antialiasing, bilinear sampling would miss every stripe: all zero.
    assert torch.allclose(reduced[..., 1:-1], torch.full((1, 3, 1, 14), 0.25), atol=0.01)


def test_by_default_the_heads_vote():
    class Heads(nn.Module):
        def forward(self, images):
            logits = torch.zeros(2, len(images), 3, *images.shape[-2:])
            logits[0, :, 1] = 30.0
            logits[1, :, 2] = 30.0
            return logits

    found = AtInputSize(4)(Heads(), torch.rand(1, 3, 8, 8))
    assert torch.allclose(found[0, :, 0, 0], torch.tensor([0.0, 0.5, 0.5]), atol=1e-6)


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match=str(size)):
        AtInputSize(size)
