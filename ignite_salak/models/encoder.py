"""What every encoder is: a trunk with two taps, and what the network around it must know.

Shape legend: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """A backbone with two taps; built by ``build_encoder``.

    Attributes:
        low_channels: channels of the feature map at stride 4.
        high_channels: channels of the feature map at stride ``output_stride``.
        output_stride: 8 or 16.
        mean: per channel, of RGB in [0, 1]; what the pretrained weights were trained with.
        std: likewise.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        channels: tuple[int, int],
        output_stride: int,
        mean: Iterable[float],
        std: Iterable[float],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.low_channels, self.high_channels = channels
        self.output_stride = output_stride
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes both feature maps.

        Args:
            images_BCHW: float [B, 3, H, W], normalised with ``mean`` and ``std``.

        Returns:
            float [B, low_channels, ceil(H / 4), ceil(W / 4)] and float [B, high_channels,
            ceil(H / output_stride), ceil(W / output_stride)].
        """
        low, high = self.trunk(images_BCHW)
        return low, high
