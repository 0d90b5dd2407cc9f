"""Prediction at another scale: images reduced before the network, probabilities enlarged after."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from ignite_salak.inference.resized import predict_resized
from ignite_salak.voting import predict_once

__all__ = ["AtScale"]


class AtScale:
    """Predicts at a fixed multiple of the images' resolution and answers at their own.

    Unlike ``AtInputSize``, what a pixel of the network shows does not depend on the size of the
    image, which for windows at the border of a photo is another one.

    Args:
        scale: pixels of the network per pixel of the image; ``input_size`` / side of the patches
            for a model that was trained on reduced patches.
        predict: called with (model, resized images) for probabilities [B, C, h, w].

    Raises:
        ValueError: ``scale`` is not positive.
    """

    def __init__(
        self, scale: float, predict: Callable[[nn.Module, Tensor], Tensor] = predict_once
    ) -> None:
        if not 0.0 < scale < math.inf:
            raise ValueError(f"--scale {scale} is not a number above 0")
        self.scale = scale
        self.predict = predict

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns probabilities, float32 [B, C, H, W].

        Args:
            model: returns logits [N, B, C, h, w].
            images: floating point [B, 3, H, W] in 0-1.
        """
        return predict_resized(self.predict, model, images, self.scale)
