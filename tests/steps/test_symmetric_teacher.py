"""Votes on flips and turns come back to their pixels."""

import pytest
import torch
from torch import Tensor, nn

from ignite_salak.inference.tta import TestTimeAugmentation
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps.symmetric_teacher import SymmetricTeacher
from ignite_salak.voting import vote


class Same(nn.Module):
    """Two heads whose logits are the image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images, images])


class Downwards(nn.Module):
    """One head that says how far down a pixel lies: no symmetry leaves it alone."""

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.linspace(0, 1, images.shape[-2])[:, None]
        return rows.expand_as(images)[None]


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_every_view_comes_back_to_its_pixels(views):
    images = torch.rand(2, 3, 8, 8)
    logits = SymmetricTeacher(Same(), views)(images)
    assert logits.shape == (2 * views, 2, 3, 8, 8)
    assert all(torch.equal(each, images) for each in logits)


@pytest.mark.parametrize(("views", "distinct"), [(1, 1), (2, 1), (4, 4), (8, 4)])
def test_the_views_differ(views, distinct):
    logits = SymmetricTeacher(Downwards(), views)(torch.rand(1, 3, 8, 8))
    found = {tuple(each.flatten().tolist()) for each in logits}
    assert len(found) == distinct


def test_its_vote_is_that_of_test_time_augmentation():
    model = ModelSpec(4, "resnet18", decoder_channels=8).build().eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        votes = vote(SymmetricTeacher(model, 8)(images))
        torch.testing.assert_close(votes, TestTimeAugmentation()(model, images))


def test_the_model_is_shared_and_its_mode_follows():
    model = nn.Sequential(Same())
    teacher = SymmetricTeacher(model, 2).train()
    assert teacher.model is model
    teacher.eval()
    assert not model.training


def test_another_number_of_views_is_refused():
    with pytest.raises(ValueError, match="--teacher-views 3"):
        SymmetricTeacher(Same(), 3)
