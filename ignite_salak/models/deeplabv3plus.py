"""DeepLabV3+ with several heads.

Shape legend: N heads, B batch, C classes, D decoder channels, H and W height and width of the
images, h and w those of the features at stride 4.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from ignite_salak.models.encoder import Encoder
from ignite_salak.models.network import Network

__all__ = ["DeepLabV3Plus"]

_LOW_LEVEL_CHANNELS = 48
_MAX_HEADS = 10
_ASPP_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class DeepLabV3Plus(Network):
    """Encoder, atrous spatial pyramid pooling, decoder, and heads that can disagree.

    The network of Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic
    Image Segmentation", 2018 (https://arxiv.org/abs/1802.02611), with plain instead of separable
    convolutions. The second convolution of its decoder belongs to the heads: each has its own,
    with its own initial weights and a dropout of 0.10, 0.15, 0.20, ... A head of dropout and a
    1 x 1 convolution alone would make the mean of the heads one linear classifier.

    Args:
        encoder: two feature maps; its ``mean`` and ``std`` are applied here, inside the model.
        num_classes: C, 2 or more.
        num_heads: N, 1 to 10.
        decoder_channels: D, width of the pyramid and of the decoder.
        head_channels: width of each head, D // 2 by default.
        aspp_rates: dilations of the pyramid; by default 6, 12, 18 at output stride 16 and
            12, 24, 36 at output stride 8.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> model = DeepLabV3Plus(build_encoder("resnet50"), num_classes=7)
        >>> probabilities = vote(model(images))
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        num_heads: int = 3,
        decoder_channels: int = 256,
        head_channels: int | None = None,
        aspp_rates: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(encoder, num_classes)
        width = max(decoder_channels // 2, 1) if head_channels is None else head_channels
        rates = _ASPP_RATES[encoder.output_stride] if aspp_rates is None else aspp_rates
        _check(num_heads, decoder_channels, width, rates)
        self.num_heads = num_heads
        self.aspp = ASPP(encoder.high_channels, rates, decoder_channels)
        self.low_level = nn.Sequential(*_conv_bn_relu(encoder.low_channels, _LOW_LEVEL_CHANNELS, 1))
        self.fuse = nn.Sequential(
            *_conv_bn_relu(decoder_channels + _LOW_LEVEL_CHANNELS, decoder_channels, 3)
        )
        self.heads = nn.ModuleList(
            nn.Sequential(
                *_conv_bn_relu(decoder_channels, width, 3),
                nn.Dropout(0.10 + 0.05 * index),
                nn.Conv2d(width, num_classes, kernel_size=1),
            )
            for index in range(num_heads)
        )

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        """Computes the logits of every head.

        Args:
            images_B3HW: float [B, 3, H, W], RGB in [0, 1] and not normalised, of any size. In
                training mode B must be 2 or more, because the pyramid's pooled branch has
                BatchNorm over one pixel per image.

        Returns:
            float [N, B, C, H, W]; under autocast of its dtype.

        Raises:
            ValueError: the images are not a batch of three channels, or are integers.
        """
        low, high = self.encoder(self.normalise(images_B3HW))
        context_BDhw = self.resize(self.aspp(high), low.shape[-2:])
        fused_BDhw = self.fuse(torch.cat([context_BDhw, self.low_level(low)], dim=1))
        logits_NBChw = torch.stack([head(fused_BDhw) for head in self.heads])
        return self.resize(logits_NBChw.flatten(0, 1), images_B3HW.shape[-2:]).unflatten(
            0, logits_NBChw.shape[:2]
        )


def _check(num_heads: int, decoder_channels: int, width: int, rates: tuple[int, ...]) -> None:
    if not 1 <= num_heads <= _MAX_HEADS:
        raise ValueError(f"number of heads {num_heads} is not between 1 and {_MAX_HEADS}")
    for name, value in (("decoder", decoder_channels), ("head", width)):
        if value < 1:
            raise ValueError(f"{name} channels {value}: 1 or more are needed")
    if not rates or min(rates) < 1:
        raise ValueError(f"ASPP rates {rates}: one or more positive numbers are needed")


def _conv_bn_relu(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
