"""Images of another size."""

import torch

from ignite_salak.resizing import resize


def test_probabilities_still_sum_to_one_and_the_same_size_changes_nothing():
    images = torch.rand(2, 4, 12, 16).softmax(dim=1)
    assert resize(images, (12, 16)) is images
    for size in ((6, 8), (30, 40), (7, 31)):
        found = resize(images, size)
        assert found.shape == (2, 4, *size)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(2, *size))


def test_reducing_averages_instead_of_dropping_pixels():
    stripes = torch.zeros(1, 3, 4, 64)
    stripes[..., ::4] = 1.0
    reduced = resize(stripes, (1, 16))
    # Without antialiasing, bilinear sampling would miss every stripe: all zero.
    assert torch.allclose(reduced[..., 1:-1], torch.full((1, 3, 1, 14), 0.25), atol=0.01)
