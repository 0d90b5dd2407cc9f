"""Flips and quarter turns."""

import torch

from ignite_salak.symmetry import SYMMETRIES


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
