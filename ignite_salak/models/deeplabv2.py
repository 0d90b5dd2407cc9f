"""DeepLabV2.

Shape legend: B batch, C classes, H and W height and width of the images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ignite_salak.models.encoder import Encoder
from ignite_salak.models.network import Network

__all__ = ["DeepLabV2"]

_ASPP_RATES = {16: (3, 6, 9, 12), 8: (6, 12, 18, 24)}


class DeepLabV2(Network):
    """Encoder, and a pyramid of dilated classifiers whose logits are added up; no decoder.

    The network of Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
    Atrous Convolution, and Fully Connected CRFs", 2017 (https://arxiv.org/abs/1606.00915), in the
    form that semi-supervised work uses: ResNet features, one 3 x 3 convolution to the classes per
    rate (its ASPP-L without the two 1 x 1 convolutions), no CRF. BatchNorm is trained.

    Args:
        encoder: of its two feature maps, the deep one is used.
        num_classes: C, 2 or more.
        aspp_rates: dilations of the pyramid; by default 6, 12, 18, 24 at output stride 8, and half
            of that, so that as much of the image is seen, at output stride 16.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> model = DeepLabV2(build_encoder("resnet101", output_stride=8), num_classes=7)
        >>> probabilities = vote(model(images))
    """

    def __init__(
        self, encoder: Encoder, num_classes: int, *, aspp_rates: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(encoder, num_classes)
        rates = _ASPP_RATES[encoder.output_stride] if aspp_rates is None else aspp_rates
        if not rates or min(rates) < 1:
            raise ValueError(f"ASPP rates {rates}: one or more positive numbers are needed")
        self.pyramid = nn.ModuleList(
            nn.Conv2d(encoder.high_channels, num_classes, 3, padding=rate, dilation=rate)
            for rate in rates
        )

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Computes the logits.

        Args:
            images_B3HW: float [B, 3, H, W], RGB in [0, 1] and not normalised, of any size.

        Returns:
            float [1, B, C, H, W], as of a network with one head; under autocast of its dtype.

        Raises:
            ValueError: the images are not a batch of three channels, or are integers.
        """
        _, features = self.encoder(self.normalise(images_B3HW))
        logits_BChw = torch.stack([branch(features) for branch in self.pyramid]).sum(dim=0)
        return self.resize(logits_BChw, images_B3HW.shape[-2:])[None]
