"""The judge of S4GAN: does a label map belong to its image, or did a network make it up?

Shape legend: B batch, C classes, H and W height and width, F features.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

__all__ = ["Discriminator"]

_SLOPE = 0.2
_DROPOUT = 0.5
_FACTORS = (1, 2, 4, 8)


class Discriminator(nn.Module):
    """Tells, patch by patch, true label maps from those that a segmentation network makes.

    Mittal, Tatarchenko and Brox 2019, "Semi-Supervised Semantic Segmentation with High- and
    Low-level Consistency" (https://arxiv.org/abs/1908.05724): image and label map, four 4 x 4
    convolutions of stride 2 with leaky ReLU, dropout of whole channels behind all but the last,
    their mean over the patch, and one linear unit. Patches may have any size from 16 pixels.

    Args:
        num_classes: C.
        width: channels of the first convolution; the others have 2, 4 and 8 times as many.

    Attributes:
        num_features: F, 8 times ``width``.

    Raises:
        ValueError: a number is not positive.

    Example:
        >>> odds, features = discriminator(images, probabilities)
        >>> score = odds.sigmoid()  # 1: a true label map
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        for name, value in (("number of classes", num_classes), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} {value} of a discriminator: 1 or more are needed")
        channels = [3 + num_classes, *(width * factor for factor in _FACTORS)]
        self.num_features = channels[-1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
            for inputs, outputs in pairwise(channels)
        )
        self.dropout = _ChannelDropout(_DROPOUT)
        self.output = nn.Linear(self.num_features, 1)

    def forward(self, images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Judges label maps.

        Args:
            images: float [B, 3, H, W] in 0-1.
            maps: probabilities, or ones and zeros, float [B, C, H, W].

        Returns:
            The log-odds that a map is true, [B], whose sigmoid is the score in 0-1 (as log-odds
            they can be trained on in float32 without overflow); and the features that feature
            matching compares, [B, F]. Both float32.
        """
        features = torch.cat([images, maps], dim=1)
        for number, convolution in enumerate(self.convolutions):
            features = leaky_relu(
                convolution(self.dropout(features) if number else features), _SLOPE
            )
        pooled = features.float().mean(dim=(2, 3))
        return self.output(pooled)[:, 0].float(), pooled


class _ChannelDropout(nn.Module):
    """``nn.Dropout2d`` out of ``nn.Dropout``, which ``models.synchronized`` knows."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.elements = nn.Dropout(p)

    def forward(self, features: Tensor) -> Tensor:
        """Drops channels of float [B, C, H, W]."""
        return features * self.elements(features.new_ones(features.shape[:2]))[..., None, None]
