"""Prediction for images of any size by a model that was trained on images of another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ignite_salak.voting import predict_once

__all__ = ["AtInputSize", "predict_resized", "resize"]


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


def predict_resized(
    predict: Callable[[nn.Module, Tensor], Tensor], model: nn.Module, images: Tensor, factor: float
) -> Tensor:
    """Predicts on resized images and brings the probabilities back to their size.

    Args:
        predict: called with (model, resized images) for probabilities [B, C, h, w].
        model: returns logits [N, B, C, h, w].
        images: floating point [B, 3, H, W] in 0-1.
        factor: pixels of the network per pixel of the images.

    Returns:
        Probabilities, float32 [B, C, H, W].
    """
    height, width = images.shape[-2:]
    inner = max(1, round(height * factor)), max(1, round(width * factor))
    resized = resize(images, inner).contiguous(memory_format=torch.channels_last)
    return resize(predict(model, resized), (height, width))


class AtInputSize:
    """Predicts at the size of training and answers at the size of the images.

    Args:
        size: length in pixels that the longer side has in the network, the ``input_size`` of
            ``data.datasets.PatchDataset``.
        predict: called with (model, resized images) for probabilities [B, C, h, w].

    Raises:
        ValueError: ``size`` is not positive.

    Example:
        >>> create_evaluator(saved.model, metrics, predict=AtInputSize(saved.facts["input_size"]))
    """

    def __init__(
        self, size: int, predict: Callable[[nn.Module, Tensor], Tensor] = predict_once
    ) -> None:
        if size < 1:
            raise ValueError(f"input size {size} is not at least 1")
        self.size = size
        self.predict = predict

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns probabilities, float32 [B, C, H, W].

        Args:
            model: returns logits [N, B, C, h, w].
            images: floating point [B, 3, H, W] in 0-1.
        """
        factor = self.size / max(images.shape[-2:])
        return predict_resized(self.predict, model, images, factor)
