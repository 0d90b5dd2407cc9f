"""Floating-point operations of a step, and what share of the device's peak they are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ignite_salak.models.model_file import ModelSpec

__all__ = ["peak_tflops_of", "step_flops", "utilisation"]

_H200_BF16_TFLOPS = 989.0  # dense; NVIDIA H200 data sheet, which gives 1,979 with sparsity


def step_flops(spec: ModelSpec, batch_size: int, view: int, patch: int) -> int:
    """Counts the floating-point operations of the network in one step of V3.

    Matrix products and convolutions, a multiplication and an addition being two; nothing is
    computed. The views of both pools go forward and backward, the plain unlabelled patches forward.

    Args:
        spec: the architecture.
        batch_size: patches of either pool.
        view: side of the views in pixels.
        patch: side of the patches in pixels.
    """
    with torch.device("meta"):
        model = spec.build()
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            model.eval()(torch.empty(batch_size, 3, patch, patch, device="meta"))
        model.train()(torch.empty(2 * batch_size, 3, view, view, device="meta")).sum().backward()
    return counter.get_total_flops()


def utilisation(flops: float, seconds: float, peak_tflops: float | None) -> dict[str, Any]:
    """Compares what is computed with what the device could compute.

    Args:
        flops: operations of the network in a step.
        seconds: of a step.
        peak_tflops: of the device, None if unknown.

    Returns:
        "tflop_per_step", "tflops" (a second), "peak_tflops", and their quotient "utilisation", the
        model FLOP utilisation of Chowdhery et al. 2022 (arXiv:2204.02311); None if unknown.
    """
    done = flops / seconds / 1e12
    return {
        "tflop_per_step": flops / 1e12,
        "tflops": done,
        "peak_tflops": peak_tflops,
        "utilisation": None if peak_tflops is None else done / peak_tflops,
    }


def peak_tflops_of(device: torch.device, precision: str) -> float | None:
    """Returns the arithmetic peak of an H200 in bf16, dense, in TFLOPS; None for all others."""
    known = device.type == "cuda" and "H200" in torch.cuda.get_device_name(device)
    return _H200_BF16_TFLOPS if known and precision == "bf16" else None
