"""Warps: image, labels and ignored border move together."""

import pytest
import torch

from ignite_salak.augment import RandomGeometry, draw_size


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(count=4, side=32):
    """Patches whose labels can be read off the image: red is the class / 10, in blocks."""
    coarse = torch.randint(1, 7, (count, 1, side // 8, side // 8), generator=generator())
    labels = coarse.repeat_interleave(8, -1).repeat_interleave(8, -2)[:, 0]
    images = (labels[:, None].float() / 10).expand(-1, 3, -1, -1).contiguous()
    return images, labels


@pytest.mark.parametrize("bounds", [(1.5, 1.0), (0.0, 1.0), (-1.0, 2.0)])
def test_a_bad_scale_range_is_refused(bounds):
    with pytest.raises(ValueError, match="scale range"):
        RandomGeometry(scale_range=bounds)


def test_sizes_are_multiples_of_16_and_cover_the_range():
    drawn = {draw_size(256, 384, generator(seed)) for seed in range(200)}
    assert drawn == set(range(256, 385, 16))
    assert draw_size(250, 256, generator()) == 256
    with pytest.raises(ValueError, match="no multiple of 16"):
        draw_size(257, 270, generator())


def test_without_randomness_the_view_is_the_patch():
    images, labels = blocks()
    geometry = RandomGeometry(mirror=False, scale_range=(1, 1)).draw(4, 32, 32, 32, generator())
    assert torch.allclose(geometry.warp_image(images), images, atol=1e-6)
    assert torch.equal(geometry.warp_labels(labels), labels)


def test_mirroring_is_exact_and_hits_half_of_the_patches():
    images = torch.rand(200, 3, 16, 16, generator=generator())
    labels = torch.randint(0, 7, (200, 16, 16), generator=generator())
    geometry = RandomGeometry(mirror=True, scale_range=(1, 1)).draw(200, 16, 16, 16, generator())
    seen, seen_labels = geometry.warp_image(images), geometry.warp_labels(labels)
    flipped = 0
    for before, after, mask, warped in zip(images, seen, labels, seen_labels, strict=True):
        mirrored = torch.allclose(after, before.flip(-1), atol=1e-5)
        assert mirrored or torch.allclose(after, before, atol=1e-5)
        assert torch.equal(warped, mask.flip(-1) if mirrored else mask)
        flipped += mirrored
    assert 70 < flipped < 130


@pytest.mark.parametrize("size", [32, 48, 64])
def test_labels_stay_on_the_image(size):
    images, labels = blocks()
    geometry = RandomGeometry(scale_range=(0.5, 2.0)).draw(4, 32, 32, size, generator())
    seen, warped = geometry.warp_image(images)[:, 0] * 10, geometry.warp_labels(labels)
    inside = warped != 255
    # Bilinear pixels between two blocks are mixtures; all others must tell their label.
    pure = (seen - seen.round()).abs() < 1e-3
    assert (pure & inside).sum() > 0.4 * inside.sum()
    agree = (seen.round() == warped)[pure & inside].float().mean()
    assert agree > 0.99


def test_what_lies_outside_is_black_and_ignored_never_class_0():
    images, labels = torch.ones(8, 3, 32, 32), torch.full((8, 32, 32), 5)
    geometry = RandomGeometry(scale_range=(0.5, 0.5)).draw(8, 32, 32, 32, generator())
    seen, warped = geometry.warp_image(images), geometry.warp_labels(labels)
    assert set(warped.unique().tolist()) == {5, 255}
    assert (warped == 5).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (seen[:, 0][warped == 255] < 1).all()


def test_class_0_and_ignore_survive():
    labels = torch.tensor([0, 255]).repeat_interleave(16).expand(2, 32, 32).contiguous()
    geometry = RandomGeometry(mirror=False, scale_range=(1, 1)).draw(2, 32, 32, 64, generator())
    warped = geometry.warp_labels(labels)
    assert (warped[..., :32] == 0).all()
    assert (warped[..., 32:] == 255).all()


def test_an_enlarged_patch_fills_the_view_from_varying_places():
    ramp = torch.linspace(0, 1, 32).expand(64, 3, 32, 32).contiguous()
    geometry = RandomGeometry(mirror=False, scale_range=(2, 2)).draw(64, 32, 32, 32, generator())
    seen = geometry.warp_image(ramp)
    warped = geometry.warp_labels(torch.ones(64, 32, 32, dtype=torch.long))
    assert (warped != 255).float().mean() > 0.99
    centres = seen[:, 0].mean(dim=(1, 2))
    assert centres.min() < 0.35
    assert centres.max() > 0.65


def test_a_patch_draws_the_same_whatever_the_batch():
    whole = RandomGeometry().draw(8, 32, 32, 32, generator()).matrices
    part = RandomGeometry().draw(3, 32, 32, 32, generator()).matrices
    assert torch.equal(whole[:3], part)
