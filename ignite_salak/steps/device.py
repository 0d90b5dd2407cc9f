"""What every step does at the border of the device: move, scale, choose the precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

__all__ = ["PRECISIONS", "autocast", "image_to_device", "resolve_precision"]

PRECISIONS = ("auto", "bf16", "fp32")


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """Settles "auto": bf16 on a CUDA device that computes in it, else fp32.

    Raises:
        ValueError: ``precision`` is none of "auto", "bf16", "fp32".
    """
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if torch.device(device).type != "cuda":
        return "fp32"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager:
    """Returns a context in which matrix products run in bf16 where the precision says so."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16")


def image_to_device(images: Tensor, device: torch.device | str) -> Tensor:
    """Moves images to the device as bytes and scales them there.

    Args:
        images: uint8 [B, 3, H, W].
        device: target device.

    Returns:
        float32 [B, 3, H, W] in 0-1, channels last.
    """
    moved = images.to(device, non_blocking=True)
    return moved.float().div_(255.0).contiguous(memory_format=torch.channels_last)
