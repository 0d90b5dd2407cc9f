"""Random numbers for the patches of a batch, and their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_rows", "to_device"]


def draw_rows(count: int, columns: int, generator: torch.Generator, first: int = 0) -> Tensor:
    """Draws uniform numbers, a row for each patch; a row does not depend on how many follow.

    Args:
        count: patches of this rank, B.
        columns: numbers for each patch, K.
        generator: CPU generator, in the same state on every rank.
        first: position of this rank's first patch in the whole batch.

    Returns:
        float32 [B, K] in [0, 1), on the CPU.
    """
    return torch.rand(first + count, columns, generator=generator)[first:]


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Copies a small tensor of the CPU to a device without waiting for it."""
    if torch.device(device).type == "cuda":
        values = values.pin_memory()  # the copy of pageable memory waits
    return values.to(device, non_blocking=True)
