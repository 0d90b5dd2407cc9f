"""The mean over flips, turns and scales."""

import pytest
import torch
from torch import nn

# Not under its own name, which pytest would take for a test class.
from ignite_salak.inference import TestTimeAugmentation as Augmentation
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.voting import predict_once


def pixelwise(model, images):
    """Equivariant: every pixel by itself."""
    return images.softmax(dim=1)


def columns(model, images):
    """Not equivariant: the first column is class 1 for certain, the rest class 0."""
    found = torch.zeros(len(images), 2, *images.shape[-2:])
    found[:, 0] = 1.0
    found[..., 0] = torch.tensor([0.0, 1.0])[None, :, None]
    return found


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3, 4, 7)])
def test_an_equivariant_model_answers_as_without(shape):
    images = torch.rand(shape)
    found = Augmentation(predict=pixelwise)(nn.Identity(), images)
    assert torch.allclose(found, pixelwise(None, images), atol=1e-6)


def test_hand_computed_mean_of_a_model_that_is_not_equivariant():
    found = Augmentation(predict=columns)(nn.Identity(), torch.rand(1, 3, 3, 4))
    # Each of the four borders is the first column of two of the eight views.
    expected = torch.tensor([[4, 2, 2, 4], [2, 0, 0, 2], [4, 2, 2, 4]]) / 8
    assert torch.allclose(found[0, 1], expected)
    assert torch.allclose(found.sum(dim=1), torch.ones(1, 3, 4))


def test_the_eight_views_differ_and_come_back_to_their_places():
    images = torch.rand(1, 3, 4, 6)
    seen = []

    def remember(model, view):
        seen.append(view)
        return view

    found = Augmentation(predict=remember)(nn.Identity(), images)
    assert torch.allclose(found, images, atol=1e-6)
    assert [tuple(view.shape[-2:]) for view in seen] == [(4, 6), (6, 4)] * 4
    different = {tuple(view.flatten().tolist()) for view in seen}
    assert len(different) == 8 == len(Augmentation())


def test_without_flips_and_turns_there_is_one_view_per_scale():
    images = torch.rand(1, 3, 3, 4)
    assert torch.equal(
        Augmentation(dihedral=False, predict=columns)(None, images), columns(0, images)
    )
    assert len(Augmentation((0.5, 1.0), dihedral=False)) == 2


def test_scales_are_rounded_to_pixels_and_weigh_the_same():
    sizes = []

    def by_size(model, view):
        sizes.append(tuple(view.shape[-2:]))
        first = 1.0 if view.shape[-1] > 9 else 0.0
        return torch.tensor([first, 1 - first])[None, :, None, None].expand(1, 2, *view.shape[-2:])

    found = Augmentation((0.75, 1.0, 1.25), False, by_size)(None, torch.rand(1, 3, 5, 9))
    assert sizes == [(4, 7), (5, 9), (6, 11)]
    assert torch.allclose(found[0, 0], torch.full((5, 9), 1 / 3))


def test_smooth_images_survive_the_scales():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).clone()
    ramp[:, 1] = 0
    found = Augmentation((0.5, 1.0, 2.0), predict=pixelwise)(None, ramp)
    inner = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(found[inner], pixelwise(None, ramp)[inner], atol=0.01)


@torch.no_grad()
def test_the_real_network_takes_odd_and_tiny_sizes():
    torch.manual_seed(0)
    model = ModelSpec(4, "resnet18", decoder_channels=8).build().eval()
    images = torch.rand(1, 3, 17, 29)
    found = Augmentation((0.1, 0.5, 1.0))(model, images)
    assert found.shape == (1, 4, 17, 29)
    assert torch.allclose(found.sum(dim=1), torch.ones(1, 17, 29), atol=1e-5)
    assert not torch.allclose(found, predict_once(model, images))
    again = Augmentation((0.1, 0.5, 1.0))(model, images.flip(-2))
    assert torch.allclose(again.flip(-2), found, atol=1e-5)


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (-1.0,), (float("inf"),), (float("nan"),)])
def test_scales_that_are_none_are_refused(scales):
    with pytest.raises(ValueError, match="expected numbers > 0"):
        Augmentation(scales)
