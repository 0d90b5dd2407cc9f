"""The labelled view, and one forward pass over all pools."""

import pytest
import torch
from torch import Tensor, nn

from ignite_salak.augment import RandomGeometry
from ignite_salak.steps.pools import forward_pools, labeled_view
from ignite_salak.steps.views import Views


class Colors(nn.Module):
    """Two heads, the "logits" of which are the image itself and its double."""

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return torch.stack([images, 2 * images])


def test_labels_are_warped_like_their_images():
    mask = (torch.arange(2 * 16 * 16) % 200).reshape(2, 16, 16).to(torch.uint8)
    image = mask[:, None].expand(-1, 3, -1, -1)
    views = Views(RandomGeometry(True, (1.0, 1.0)), (16, 16), seed=3)
    drawn = [
        labeled_view({"image": image, "mask": mask}, views, iteration, "cpu")
        for iteration in range(1, 9)
    ]
    for images, target in drawn:
        assert images.dtype == torch.float32 and images.shape == (2, 3, 16, 16)
        assert target.dtype == torch.int64 and target.shape == (2, 16, 16)
        torch.testing.assert_close(images[:, 0] * 255, target.float(), atol=1e-3, rtol=0)
    assert any(not torch.equal(target, drawn[0][1]) for _, target in drawn)  # some are flipped


def test_views_are_a_function_of_the_iteration():
    labeled = {
        "image": torch.randint(1, 256, (2, 3, 16, 16), dtype=torch.uint8),
        "mask": torch.randint(0, 5, (2, 16, 16), dtype=torch.uint8),
    }
    views = Views(RandomGeometry(True, (0.5, 2.0)), (16, 48), seed=3)
    once, again = (labeled_view(labeled, views, 7, "cpu") for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))
    assert not torch.equal(once[0], labeled_view(labeled, views, 8, "cpu")[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pools_come_back_in_their_places(precision):
    model = Colors().eval()
    images = torch.rand(4, 2, 3, 8, 8)
    logits = forward_pools(model, images, "cpu", precision)
    assert logits.shape == (2, 4, 2, 3, 8, 8)
    assert torch.equal(logits[0], images)
    assert torch.equal(logits[1], 2 * images)


def test_one_pass_in_training_mode_with_the_pools_interleaved():
    model = Colors().eval()
    images = torch.rand(4, 2, 3, 8, 8)
    forward_pools(model, images, "cpu", "fp32")
    assert model.training
    assert model.seen.shape == (8, 3, 8, 8)
    assert model.seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.seen[0], images[0, 0])
    assert torch.equal(model.seen[1], images[0, 1])
    assert torch.equal(model.seen[2], images[1, 0])


def test_one_pool_alone():
    images = torch.rand(4, 1, 3, 8, 8)
    assert torch.equal(forward_pools(Colors(), images, "cpu", "fp32")[0], images)
