"""What every network is: an encoder, and around it whatever turns its features into logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ignite_salak.models.encoder import Encoder

__all__ = ["Network"]


class Network(nn.Module):
    """Base of the networks: normalisation inside the model, and two groups of parameters.

    Args:
        encoder: two feature maps; its ``mean`` and ``std`` are applied in ``normalise``.
        num_classes: C, 2 or more.

    Raises:
        ValueError: there are fewer than two classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"number of classes {num_classes}: 2 or more are needed")
        self.num_classes = num_classes
        for name, values in (("mean", encoder.mean), ("std", encoder.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.encoder = encoder

    def normalise(self, images: Tensor) -> Tensor:
        """Returns images as the encoder wants them.

        Args:
            images: float [B, 3, H, W], RGB in [0, 1]. The range is the caller's duty: checking it
                would wait for the GPU.

        Raises:
            ValueError: the images are not a batch of three channels, or are integers.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(images.shape)}, expected [B, 3, H, W]")
        if not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}, expected floating point in [0, 1]")
        return (images - self.mean) / self.std

    @staticmethod
    def resize(features: Tensor, size: torch.Size) -> Tensor:
        """Resizes [B, C, h, w] bilinearly to ``size``, corners of pixels aligned."""
        return interpolate(features, size=size, mode="bilinear", align_corners=False)

    def parameter_groups(self, lr: float, decoder_multiplier: float = 10.0) -> list[dict[str, Any]]:
        """Returns two groups for an optimizer; every parameter is in exactly one.

        Args:
            lr: learning rate of the group ``encoder``.
            decoder_multiplier: the group ``decoder``, all the rest, learns at this times ``lr``.

        Raises:
            ValueError: a number is not positive.
        """
        for name, value in (("learning rate", lr), ("decoder multiplier", decoder_multiplier)):
            if not value > 0:
                raise ValueError(f"{name} {value} is not positive")
        encoder = list(self.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        decoder = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [
            {"name": "encoder", "params": encoder, "lr": lr},
            {"name": "decoder", "params": decoder, "lr": lr * decoder_multiplier},
        ]
