"""What steps do with the pools of a batch: the labelled view, and one forward pass over all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.steps.views import Views

__all__ = ["forward_pools", "labeled_view"]


def labeled_view(
    labeled: Mapping[str, Tensor], views: Views, iteration: int, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Moves the labelled patches to the device and warps them.

    Args:
        labeled: "image" uint8 [B, 3, H, W] and "mask" uint8 [B, H, W].
        views: the random views.
        iteration: the current one.
        device: target device.

    Returns:
        Images float32 [B, 3, S, S] in 0-1 and class indices int64 [B, S, S].
    """
    images = image_to_device(labeled["image"], device)
    target = labeled["mask"].to(device, non_blocking=True).long()
    geometry = views.draw(images, iteration, "labeled")
    return geometry.warp_image(images), geometry.warp_labels(target)


def forward_pools(
    model: nn.Module, images: Tensor, device: torch.device | str, precision: str
) -> Tensor:
    """Runs the model once, in training mode, over the patches of all pools.

    Patch i of every pool lies beside patch i of the others, so that the parts of a batch, and those
    of several ranks, follow each other; and BatchNorm sees one mixture.

    Args:
        model: returns logits [N, B, C, S, S].
        images: float32 [B, P, 3, S, S] of P pools.
        device: where the model is.
        precision: "fp32" or "bf16".

    Returns:
        Logits [N, B, P, C, S, S].
    """
    model.train()
    flat = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    with autocast(device, precision):
        return model(flat).unflatten(1, images.shape[:2])
