"""The views that the teacher votes on."""

import pytest
import torch
from torch import Tensor, nn

from ignite_salak.inference import tta
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps.teacher_views import TeacherView, TeacherViews
from ignite_salak.symmetry import SYMMETRIES
from ignite_salak.voting import vote


class Same(nn.Module):
    """Two heads whose logits are the image; remembers the sides of what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sides.append(tuple(images.shape[-2:]))
        return torch.stack([images, images + 1])


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_every_view_comes_back_to_its_pixels(symmetry):
    images = torch.rand(2, 3, 32, 32)
    logits = TeacherView(symmetry).logits(Same(), images)
    assert torch.equal(logits, torch.stack([images, images + 1]))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_an_enlarged_view_comes_back_to_its_pixels_and_size(symmetry):
    smooth = torch.linspace(0, 1, 48).expand(1, 3, 48, 48) * torch.linspace(1, 2, 48)[:, None]
    model = Same()
    logits = TeacherView(symmetry, 1.4).logits(model, smooth)
    assert model.sides == [(64, 64)]  # 67.2, as a multiple of 16
    assert logits.shape == (2, 1, 3, 48, 48)
    torch.testing.assert_close(logits[0], smooth, rtol=0, atol=0.02)


def test_sides_of_another_scale_are_multiples_of_16():
    model = Same()
    for scale in (0.01, 0.5, 1.2, 1.5):
        TeacherView(SYMMETRIES[0], scale).logits(model, torch.rand(1, 3, 128, 160))
    assert model.sides == [(16, 16), (64, 80), (160, 192), (192, 240)]


def test_eight_views_of_one_scale_vote_as_test_time_augmentation():
    model = ModelSpec(4, "resnet18", decoder_channels=8).build().eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        views = TeacherViews(0, count=8).draw(1)
        votes = vote(torch.cat([view.logits(model, images) for view in views]))
        torch.testing.assert_close(votes, tta.TestTimeAugmentation()(model, images))


def test_every_iteration_draws_any_of_the_symmetries_and_repeats_itself():
    draw = TeacherViews(3).draw
    drawn = [draw(iteration) for iteration in range(200)]
    assert {view.symmetry for (view,) in drawn} == set(SYMMETRIES)
    assert [draw(iteration) for iteration in range(200)] == drawn
    assert [TeacherViews(4).draw(iteration) for iteration in range(200)] != drawn


def test_further_views_are_turned_otherwise_and_have_scales_of_their_own():
    one, three = TeacherViews(3), TeacherViews(3, 3, (1.0, 1.5))
    scales = []
    for iteration in range(200):
        first, *others = three.draw(iteration)
        assert [first] == list(one.draw(iteration))  # further views do not change the first
        assert first.scale == 1.0
        assert len({view.symmetry for view in (first, *others)}) == 3
        scales += [view.scale for view in others]
    assert 1.0 <= min(scales) < 1.05
    assert 1.45 < max(scales) <= 1.5
    assert len(set(scales)) > 390


def test_what_cannot_be_drawn_is_refused_by_the_name_of_its_flag():
    for count in (0, 9):
        with pytest.raises(ValueError, match=f"--teacher-views {count}: expected 1 to 8"):
            TeacherViews(0, count)
    for scales in ((1.5, 1.0), (0.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match=r"--teacher-scales .* expected 0 < smallest"):
            TeacherViews(0, 2, scales)
