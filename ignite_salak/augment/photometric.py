"""Strong views: colours, grey and blur, drawn for each patch of a batch.

Shapes: B batch, H and W of the view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from kornia.enhance import adjust_brightness_accumulative, adjust_hue
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from ignite_salak.augment.draws import draw_rows, to_device

__all__ = ["RandomColors"]

_DARKEST = 1 / 255


@dataclass(frozen=True)
class RandomColors:
    """Draws colour jitter, greyness and blur for every patch; no pixel moves.

    The order is fixed: brightness, contrast, saturation, hue, grey, blur. A factor of 1 changes
    nothing; brightness multiplies, contrast and saturation blend with the patch's mean luma and
    with the pixel's luma (ITU-R BT.601), as Pillow's do, but the mean is that of the pixels with
    content; hue turns. The strengths are those of UniMatch (Yang et al. 2023, arXiv:2208.09910),
    which draws the order of the first four as well.

    Pixels without content, which are pure black, stay pure black, and no other pixel becomes so.

    Attributes:
        brightness: factors come from 1 - this to 1 + this, not below 0; 0 switches it off.
        contrast: likewise.
        saturation: likewise.
        hue: largest turn of the hue in either direction, in full turns; 0 switches it off.
        jitter_probability: share of the patches that get the four above.
        grayscale_probability: share of the patches that become grey.
        blur_probability: share of the patches that are blurred.
        blur_sigma: bounds of the Gaussian's standard deviation in pixels.

    Raises:
        ValueError: a number is out of its range.
    """

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} is not >= 0; 0 switches it off")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue {self.hue} is not between 0 and 0.5 (half a turn)")
        for name in ("jitter_probability", "grayscale_probability", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is not between 0 and 1")
        low, high = self.blur_sigma
        if not 0 < low <= high:
            raise ValueError(f"blur sigma {self.blur_sigma} is not 0 < low <= high")

    def __call__(self, images: Tensor, generator: torch.Generator, first: int = 0) -> Tensor:
        """Changes the colours of a batch.

        Args:
            images: float32 [B, 3, H, W] in 0-1, on any device; black pixels have no content.
            generator: CPU generator; the draws of a patch do not depend on B.
            first: position of this rank's first patch in the whole batch.

        Returns:
            float32 [B, 3, H, W] in 0-1; a patch that draws nothing is unchanged.
        """
        draws = draw_rows(len(images), 8, generator, first).to(images.dtype)
        jittered = draws[:, 0] < self.jitter_probability
        grey = draws[:, 5] < self.grayscale_probability
        blurred = draws[:, 6] < self.blur_probability
        view = _change(images, jittered, self._jitter, self._factors(draws[:, 1:5]))
        view = _change(view, grey, _grey)
        view = _change(view, blurred, _blur, self._kernels(draws[:, 7:]))
        return images if view is images else _restore_black(view, images)

    def _factors(self, draws: Tensor) -> Tensor:
        """Scales draws [B, 4] to factors of brightness, contrast and saturation, and to radians."""
        strengths = [self.brightness, self.contrast, self.saturation, 2 * math.pi * self.hue]
        changes = (2 * draws - 1) * draws.new_tensor(strengths)
        return torch.cat([(1 + changes[:, :3]).clamp_min(0), changes[:, 3:]], dim=1)

    def _kernels(self, draws: Tensor) -> Tensor:
        """Scales draws [B, 1] to Gaussians [B, K], K so that the widest reaches 3 deviations."""
        low, high = self.blur_sigma
        return get_gaussian_kernel1d(2 * math.ceil(3 * high) + 1, low + (high - low) * draws)

    def _jitter(self, images: Tensor, factors: Tensor) -> Tensor:
        brightness, contrast, saturation, hue = factors[..., None, None, None].unbind(1)
        if self.contrast > 0:
            content = _content(images).sum(dim=(2, 3), keepdim=True).clamp_min(1)
        if self.brightness > 0:
            images = adjust_brightness_accumulative(images, brightness)
        if self.contrast > 0:
            mean = _luma(images).sum(dim=(2, 3), keepdim=True) / content
            images = torch.lerp(mean, images, contrast).clamp_(0, 1)
        if self.saturation > 0:
            images = torch.lerp(_luma(images), images, saturation).clamp_(0, 1)
        return adjust_hue(images, hue.flatten()) if self.hue > 0 else images


def _change(
    images: Tensor, drawn: Tensor, change: Callable[..., Tensor], *parameters: Tensor
) -> Tensor:
    """Changes the patches that drew it, and computes nothing for the others.

    Args:
        images: [B, 3, H, W].
        drawn: bool [B], on the CPU, where their number can be known without waiting.
        change: called with the patches that drew it and their rows of the parameters.
        parameters: [B, ...], on the CPU.
    """
    rows = drawn.nonzero()[:, 0]
    if not len(rows):
        return images
    own = [to_device(values[rows], images.device) for values in parameters]
    if len(rows) == len(images):
        return change(images, *own)
    places = to_device(rows, images.device)
    return images.index_copy(0, places, change(images.index_select(0, places), *own))


def _content(images: Tensor) -> Tensor:
    """Tells content from pure black, bool [B, 1, H, W]; values below 0 there are not."""
    return images.amax(dim=1, keepdim=True) > 0


def _luma(images: Tensor) -> Tensor:
    """Luma [B, 1, H, W]; kornia's own, before 0.9, copies its weights to the GPU and waits."""
    red, green, blue = images.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]


def _grey(images: Tensor) -> Tensor:
    return _luma(images).expand_as(images)


def _blur(images: Tensor, kernels: Tensor) -> Tensor:
    # gaussian_blur2d would wait: it reads the standard deviations back to check them.
    return filter2d_separable(images.contiguous(), kernels, kernels)


def _restore_black(view: Tensor, images: Tensor) -> Tensor:
    """Makes black what was black, and keeps everything else from being so."""
    content = _content(images)
    least = _DARKEST * (content & ~_content(view))
    return torch.addcmul(least, view, content.to(view.dtype)).clamp_(0, 1)
