"""Warps: image, labels and ignored border move together."""

import pytest
import torch

from ignite_salak.augment import Geometry, RandomGeometry, draw_size
from ignite_salak.augment import geometry as module


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
        mirrored = torch.equal(after, before.flip(-1))
        assert mirrored or torch.equal(after, before)
        assert torch.equal(warped, mask.flip(-1) if mirrored else mask)
        flipped += mirrored
    assert 70 < flipped < 130


def test_quarter_turns_are_exact_and_equally_frequent():
    images = torch.rand(400, 3, 16, 16, generator=generator())
    labels = torch.randint(0, 7, (400, 16, 16), generator=generator())
    drawing = RandomGeometry(mirror=False, scale_range=(1, 1), turns=True)
    geometry = drawing.draw(400, 16, 16, 16, generator())
    seen, seen_labels = geometry.warp_image(images), geometry.warp_labels(labels)
    counts = [0, 0, 0, 0]
    for before, after, mask, warped in zip(images, seen, labels, seen_labels, strict=True):
        quarters = [k for k in range(4) if torch.allclose(before.rot90(k, (1, 2)), after)]
        assert len(quarters) == 1
        assert torch.equal(mask.rot90(quarters[0], (0, 1)), warped)
        counts[quarters[0]] += 1
    assert min(counts) > 70


def test_turns_of_oblong_patches_keep_all_pixels():
    images = torch.rand(64, 3, 16, 32, generator=generator())
    drawing = RandomGeometry(mirror=False, scale_range=(1, 1), turns=True)
    seen = drawing.draw(64, 16, 32, 32, generator()).warp_image(images)
    torch.testing.assert_close(seen.sum(dim=(1, 2, 3)), images.sum(dim=(1, 2, 3)))
    rows = (seen.sum(dim=1) > 0).any(dim=2).sum(dim=1)
    assert set(rows.tolist()) == {17, 32}  # 16 rows at a fraction of a pixel cover 17
    assert 16 < (rows == 32).sum() < 48


def test_the_turns_of_a_patch_do_not_depend_on_the_batch():
    drawing = RandomGeometry(turns=True)
    one, four = (drawing.draw(count, 32, 32, 48, generator()).matrices for count in (1, 4))
    assert torch.equal(one, four[:1])


@pytest.mark.parametrize("size", [32, 48, 64])
@pytest.mark.parametrize("turns", [False, True])
def test_labels_stay_on_the_image(size, turns):
    images, labels = blocks()
    drawing = RandomGeometry(scale_range=(0.5, 2.0), turns=turns)
    geometry = drawing.draw(4, 32, 32, size, generator())
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


def by_hand(images, matrices, size):
    """Bilinear views in float64: every view pixel's place by a general inverse, pixel by pixel."""
    row = torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(matrices), 1, 3)
    inverse = torch.linalg.inv(torch.cat([matrices, row], dim=1).double())
    side = torch.arange(size).double()
    pixels = torch.stack([*torch.meshgrid(side, side, indexing="xy"), torch.ones(size, size)])
    x, y, _ = (inverse @ pixels.double().flatten(1)).unflatten(2, (size, size)).unbind(1)
    padded = torch.nn.functional.pad(images.double(), (1, 1, 1, 1))
    height, width = images.shape[-2:]
    patch = torch.arange(len(images))[:, None, None]
    seen = 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        left, top = x.floor() + j, y.floor() + i
        weight = (1 - (x - left).abs()) * (1 - (y - top).abs())
        column, line = left.clamp(-1, width).long() + 1, top.clamp(-1, height).long() + 1
        seen += weight[:, None] * padded[patch, :, line, column].movedim(-1, 1)
    return seen


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 48), (20, 36, 32), (33, 33, 16)])
def test_views_are_those_of_exact_arithmetic(height, width, size):
    images = torch.rand(6, 3, height, width, generator=generator())
    geometry = RandomGeometry().draw(6, height, width, size, generator())
    turned = geometry.matrices.clone()
    turned[3:, 0, 1], turned[3:, 1, 0] = 0.3, -0.2  # warps that nothing draws as yet
    for matrices in (geometry.matrices, turned):
        seen = Geometry(matrices, size).warp_image(images)
        assert torch.allclose(seen.double(), by_hand(images, matrices, size), atol=2e-5)


def test_a_view_of_half_the_size_takes_every_second_label():
    labels = torch.randint(0, 7, (4, 64, 64), generator=generator())
    geometry = RandomGeometry(mirror=False, scale_range=(1, 1)).draw(4, 64, 64, 32, generator())
    assert torch.equal(geometry.warp_labels(labels), labels[:, ::2, ::2])


def test_image_and_labels_share_the_places(monkeypatch):
    made = []
    invert = module._view_to_patch
    monkeypatch.setattr(module, "_view_to_patch", lambda *a: made.append(a[2:]) or invert(*a))
    images, labels = blocks()
    geometry = RandomGeometry().draw(4, 32, 32, 48, generator())
    geometry.warp_image(images)
    geometry.warp_labels(labels)
    assert made == [(32, 32)]
    geometry.warp_image(images[..., :16, :])  # another height has places of its own
    assert made == [(32, 32), (16, 32)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_and_is_not_waited_for():
    images, labels = blocks()
    geometry = RandomGeometry().draw(4, 32, 32, 48, generator())
    expected = geometry.warp_image(images), geometry.warp_labels(labels)
    images, labels = images.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen, warped = geometry.warp_image(images), geometry.warp_labels(labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(seen.cpu(), expected[0], atol=1e-5)
    assert (warped.cpu() == expected[1]).float().mean() > 0.999
