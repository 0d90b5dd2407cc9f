"""Strong views keep the pixel grid: whatever moves, moves with its label."""

import pytest
import torch

from ignite_salak.augment import ClassConfidence, RandomColors
from ignite_salak.steps.strong_views import StrongViews

SIDE = 32


@pytest.fixture
def unlabeled():
    """Grey images whose value is the patch's number; label 1 everywhere, weight 0.5."""
    values = torch.linspace(0.2, 0.8, 4)[:, None, None, None]
    images = values.expand(4, 3, SIDE, SIDE).clone()
    labels = torch.ones(4, SIDE, SIDE, dtype=torch.long)
    return images, labels, torch.full((4, SIDE, SIDE), 0.5)


@pytest.fixture
def labeled():
    """White images; class 2 above, class 0 below, ignored on the left."""
    truth = torch.full((4, SIDE, SIDE), 2)
    truth[:, SIDE // 2 :] = 0
    truth[:, :, :4] = 255
    return torch.ones(4, 3, SIDE, SIDE), truth


def test_nothing_switched_on_changes_nothing(unlabeled, labeled):
    views = StrongViews(0, box_probability=0.0)(1, unlabeled, labeled)
    assert all(torch.equal(new, old) for new, old in zip(views, unlabeled, strict=True))


def test_boxes_carry_image_label_and_weight_of_the_neighbour(unlabeled, labeled):
    images, labels, weights = unlabeled
    labels = labels * torch.arange(4)[:, None, None]
    weights = weights * torch.arange(1, 5)[:, None, None]
    strong = StrongViews(0, box_probability=1.0)(3, (images, labels, weights), labeled)
    for patch, partner in ((0, 1), (1, 0), (2, 3), (3, 2)):
        moved = strong[1][patch] != patch
        assert 0.01 < moved.float().mean() < 0.45
        assert (strong[1][patch][moved] == partner).all()
        assert torch.equal(strong[0][patch, 0] == images[partner, 0, 0, 0], moved)
        assert torch.equal(strong[2][patch] == weights[partner], moved)


def test_pasted_pixels_are_true_and_count_in_full(unlabeled, labeled):
    views = StrongViews(0, box_probability=0.0, paste=ClassConfidence(3))
    images, labels, weights = views(1, unlabeled, labeled)
    pasted = labels == 2
    # Of the only class besides the background, all that is not ignored.
    assert torch.equal(pasted, labeled[1] == 2)
    assert torch.equal(images[:, 0] == 1.0, pasted)
    assert torch.equal(weights == 1.0, pasted)
    assert (labels[~pasted] == 1).all()


def test_views_are_a_function_of_seed_and_iteration(unlabeled, labeled):
    def make(seed, iteration):
        views = StrongViews(seed, RandomColors(), 1.0, ClassConfidence(3))
        return views(iteration, unlabeled, labeled)[0]

    assert torch.equal(make(1, 5), make(1, 5))
    assert not torch.equal(make(1, 5), make(1, 6))
    assert not torch.equal(make(1, 5), make(2, 5))


def test_ranks_make_their_part(unlabeled, labeled, monkeypatch):
    views = StrongViews(1, RandomColors(), 1.0, ClassConfidence(3))
    whole = views(2, unlabeled, labeled)
    for number in range(2):
        monkeypatch.setattr("ignite_salak.steps.strong_views.rank", lambda number=number: number)
        mine = slice(2 * number, 2 * number + 2)
        part = views(
            2, tuple(part[mine] for part in unlabeled), tuple(part[mine] for part in labeled)
        )
        for found, expected in zip(part, whole, strict=True):
            assert torch.allclose(found, expected[mine])
