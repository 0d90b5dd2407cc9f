"""Images of another size."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["resize"]


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes bilinearly, with antialiasing where it reduces; the same size changes nothing.

    The weights of a pixel sum to one, so probabilities that sum to one still do.

    Args:
        images: floating point [B, C, H, W].
        size: height and width of the result.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    return interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
