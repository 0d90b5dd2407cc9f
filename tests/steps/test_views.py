"""Views are a function of seed, iteration and pool; ranks draw their part of the whole."""

import pytest
import torch

from ignite_salak.augment import RandomGeometry
from ignite_salak.steps.views import Views

IMAGES = torch.zeros(4, 3, 32, 32)


@pytest.fixture
def views():
    return Views(RandomGeometry(), (32, 96), seed=5)


def test_the_same_address_draws_the_same_views(views):
    for iteration in (1, 7):
        first, again = (views.draw(IMAGES, iteration, "labeled") for _ in range(2))
        assert first.size == again.size
        assert torch.equal(first.matrices, again.matrices)
    assert not torch.equal(
        views.draw(IMAGES, 1, "labeled").matrices, views.draw(IMAGES, 2, "labeled").matrices
    )


def test_pools_differ_but_share_the_size(views):
    for iteration in range(1, 9):
        labeled = views.draw(IMAGES, iteration, "labeled")
        unlabeled = views.draw(IMAGES, iteration, "unlabeled")
        assert labeled.size == unlabeled.size
        assert not torch.equal(labeled.matrices, unlabeled.matrices)
    assert len({views.draw(IMAGES, iteration, "labeled").size for iteration in range(30)}) > 3


def test_ranks_draw_their_part(views, monkeypatch):
    whole = views.draw(IMAGES, 3, "labeled")
    for number in range(2):
        monkeypatch.setattr("ignite_salak.steps.views.rank", lambda number=number: number)
        part = views.draw(IMAGES[:2], 3, "labeled")
        assert part.size == whole.size
        assert torch.equal(part.matrices, whole.matrices[2 * number :][:2])
