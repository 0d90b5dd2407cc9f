"""Flips and quarter turns."""

import pytest
import torch

from ignite_salak.symmetry import SYMMETRIES, RandomSymmetries


def test_there_are_eight_and_the_first_leaves_images_alone():
    images = torch.rand(2, 3, 8, 8)
    views = [symmetry.apply(images) for symmetry in SYMMETRIES]
    assert torch.equal(views[0], images)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views)


def test_what_is_found_on_a_view_comes_back_to_its_pixels():
    images = torch.rand(2, 3, 6, 8)
    for symmetry in SYMMETRIES:
        view = symmetry.apply(images)
        assert view.shape[-2:] == ((8, 6) if symmetry.turns % 2 else (6, 8))
        assert torch.equal(symmetry.undo(view), images)
        assert torch.equal(symmetry.undo(torch.stack([view, view])), torch.stack([images, images]))


def test_every_iteration_draws_its_own_and_any_of_them():
    draw = RandomSymmetries(3).draw
    drawn = [draw(iteration) for iteration in range(200)]
    assert {symmetry for (symmetry,) in drawn} == set(SYMMETRIES)
    assert [draw(iteration) for iteration in range(200)] == drawn
    assert [RandomSymmetries(4).draw(iteration) for iteration in range(200)] != drawn


def test_several_are_different_ones_and_leave_the_first_as_it_is():
    seconds = set()
    for iteration in range(200):
        three = RandomSymmetries(3, count=3).draw(iteration)
        assert three[:1] == RandomSymmetries(3).draw(iteration)
        assert len(set(three)) == 3
        seconds.add(three[1])
    assert seconds == set(SYMMETRIES)
    assert set(RandomSymmetries(3, count=8).draw(1)) == set(SYMMETRIES)


@pytest.mark.parametrize("count", [-1, 0, 9])
def test_another_count_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} flips and turns: expected 1 to 8"):
        RandomSymmetries(0, count)
