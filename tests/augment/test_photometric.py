"""Colours: each operation by hand, all of them against torchvision's, black and the addressing."""

import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional

from ignite_salak.augment import RandomColors

OFF = {
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "jitter_probability": 1.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(**options):
    return RandomColors(**{**OFF, **options})


def noise(count=4, side=16):
    return torch.rand(count, 3, side, side, generator=generator(9)) * 0.9 + 0.05


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("brightness", -0.1),
        ("contrast", float("nan")),
        ("hue", 0.6),
        ("jitter_probability", 1.5),
        ("grayscale_probability", -0.5),
        ("blur_sigma", (0.0, 2.0)),
        ("blur_sigma", (2.0, 1.0)),
    ],
)
def test_bad_options_are_refused(option, value):
    with pytest.raises(ValueError, match=option.replace("_sigma", " sigma")):
        RandomColors(**{option: value})


def test_brightness_multiplies():
    factors = only(brightness=0.5)(torch.full((300, 3, 4, 4), 0.4), generator()) / 0.4
    assert torch.allclose(factors, factors[:, :1, :1, :1].expand_as(factors))
    assert factors.min().item() == pytest.approx(0.5, abs=0.02)
    assert factors.max().item() == pytest.approx(1.5, abs=0.02)


def test_contrast_blends_with_the_mean_of_what_has_content():
    # Grey 0.2 and 0.6, mean 0.4; the black half would pull it down to 0.2.
    row = torch.tensor([0.2, 0.6, 0.0, 0.0])
    view = only(contrast=0.5)(row.expand(300, 3, 4, 4).contiguous(), generator())
    factors = (view[..., 1] - 0.4) / 0.2
    assert torch.allclose(view[..., 0], 0.4 - 0.2 * factors, atol=1e-6)
    assert factors.min().item() == pytest.approx(0.5, abs=0.02)
    assert factors.max().item() == pytest.approx(1.5, abs=0.02)
    assert (view[..., 2:] == 0).all()


def test_saturation_blends_with_the_luma():
    pixel = torch.tensor([0.6, 0.4, 0.2])[:, None, None]
    luma = 0.437  # 0.299 * 0.6 + 0.587 * 0.4 + 0.114 * 0.2
    view = only(saturation=0.5)(pixel.expand(300, 3, 2, 2).contiguous(), generator())
    factors = (view - luma) / (pixel - luma)
    assert torch.allclose(factors, factors[:, :1, :1, :1].expand_as(factors), atol=1e-4)
    assert factors.min().item() == pytest.approx(0.5, abs=0.02)
    assert factors.max().item() == pytest.approx(1.5, abs=0.02)


def test_hue_turns_and_leaves_saturation_and_value():
    color = (0.8, 0.3, 0.2)
    before = colorsys.rgb_to_hsv(*color)
    images = torch.tensor(color)[:, None, None].expand(300, 3, 1, 1).contiguous()
    turns = []
    for pixel in only(hue=0.25)(images, generator())[:, :, 0, 0].tolist():
        after = colorsys.rgb_to_hsv(*pixel)
        assert after[1:] == pytest.approx(before[1:], abs=1e-5)
        turns.append((after[0] - before[0] + 0.5) % 1 - 0.5)
    assert min(turns) == pytest.approx(-0.25, abs=0.01)
    assert max(turns) == pytest.approx(0.25, abs=0.01)


def test_grey_is_the_luma():
    images = noise()
    view = only(jitter_probability=0, grayscale_probability=1)(images, generator())
    luma = torch.einsum("bchw,c->bhw", images, torch.tensor([0.299, 0.587, 0.114]))
    assert torch.allclose(view, luma[:, None].expand_as(view), atol=1e-6)


def test_a_blurred_point_is_a_gaussian():
    images = torch.full((1, 3, 15, 15), 0.2)
    images[:, :, 7, 7] = 1.0
    colors = only(jitter_probability=0, blur_probability=1, blur_sigma=(1.5, 1.5))
    profile = (-0.5 * ((torch.arange(15) - 7) / 1.5) ** 2).exp()
    profile[[0, 1, 13, 14]] = 0  # beyond three deviations, rounded up to 5 pixels
    profile /= profile.sum()
    expected = 0.2 + 0.8 * profile * profile[:, None]
    assert torch.allclose(colors(images, generator()), expected.expand(1, 3, 15, 15), atol=1e-6)


def test_every_patch_blurs_by_itself():
    images = noise(64, 32)
    view = only(jitter_probability=0, blur_probability=1)(images, generator())
    left = view.var(dim=(1, 2, 3)) / images.var(dim=(1, 2, 3))
    assert left.min() < 0.1
    assert left.max() > 0.95


def test_all_together_are_torchvisions_operations_in_the_documented_order():
    images = noise(count=24)
    u = torch.rand(24, 8, generator=generator(3)).tolist()
    expected = []
    for patch, (jitter, b, c, s, h, grey, blur, sigma) in zip(images, u, strict=True):
        if jitter < 0.8:
            patch = functional.adjust_brightness(patch, 0.5 + b)
            patch = functional.adjust_contrast(patch, 0.5 + c)
            patch = functional.adjust_saturation(patch, 0.5 + s)
            patch = functional.adjust_hue(patch, 0.5 * h - 0.25)
        if grey < 0.2:
            patch = functional.rgb_to_grayscale(patch, 3)
        if blur < 0.5:
            patch = functional.gaussian_blur(patch, [13, 13], [0.1 + 1.9 * sigma] * 2)
        expected.append(patch)
    found = RandomColors()(images, generator(3))
    # torchvision's luma takes 0.2989 of the red.
    assert torch.allclose(found, torch.stack(expected), atol=2e-3)


def test_black_stays_black_and_nothing_else_becomes_black():
    images = noise(64, 32)
    images[:, :, :, :5] = 0  # a border
    images[:, :, 8, 8] = 1e-3  # contrast pushes it below 0
    images[:, :, 20, 20] = 0  # and a black point in the midst
    # Without hue and brightness the dark pixel is sure to be pushed where contrast rises.
    pushed = (only(contrast=0.5)(images, generator())[:, :, 8, 8] == 1 / 255).all(dim=1)
    assert 16 < pushed.sum() < 48
    for colors in (RandomColors(), RandomColors(brightness=1.0, contrast=1.0, saturation=1.0)):
        view = colors(images, generator())
        assert torch.equal((view != 0).any(dim=1), (images != 0).any(dim=1))
        assert view.min() >= 0
        assert view.max() <= 1


def test_a_patch_that_draws_nothing_is_unchanged():
    images = noise(200, 8)
    never = only(jitter_probability=0)
    assert torch.equal(never(images, generator()), images)
    view = only(brightness=0.5, jitter_probability=0.3)(images, generator())
    same = (view == images).flatten(1).all(dim=1)
    assert 110 < same.sum() < 170


def test_the_batch_given_is_not_written_to():
    images = noise()
    before = images.clone()
    RandomColors(jitter_probability=1, blur_probability=1)(images, generator())
    assert torch.equal(images, before)


def test_a_patch_draws_the_same_whatever_the_batch_and_the_rank():
    images = noise(8)
    state = torch.get_rng_state()
    whole = RandomColors()(images, generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(RandomColors()(images, generator()), whole)
    assert torch.allclose(RandomColors()(images[:3], generator()), whole[:3], atol=1e-6)
    assert torch.allclose(RandomColors()(images[4:], generator(), 4), whole[4:], atol=1e-6)
    assert not torch.allclose(RandomColors()(images, generator(1)), whole, atol=1e-2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_layout_in_memory_does_not_matter(memory_format):
    images = noise().contiguous(memory_format=memory_format)
    expected = RandomColors()(noise(), generator())
    assert torch.allclose(RandomColors()(images, generator()), expected, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_sees_the_same_and_is_not_waited_for():
    images = noise(16, 32)
    images[:, :, :4] = 0
    expected = RandomColors()(images, generator())
    images = images.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = RandomColors()(images, generator())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.allclose(view.cpu(), expected, atol=1e-3)
