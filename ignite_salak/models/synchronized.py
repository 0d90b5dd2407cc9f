"""BatchNorm and dropout that see the batch of all ranks, as one process would.

Shape legend: B patches of this rank, C channels, H and W height and width.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from ignite_salak.ranks import rank, rank_count, sum_over_ranks

__all__ = ["GlobalBatchNorm2d", "GlobalDropout", "synchronize"]

_Model = TypeVar("_Model", bound=nn.Module)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the patches of all ranks, on any device and backend.

    torch's own ``SyncBatchNorm`` is faster but computes on GPUs only. Mean and variance are those
    of Ioffe and Szegedy 2015 (arXiv:1502.03167) over all ranks, in two passes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises float [B, C, H, W]."""
        if not self.training or rank_count() == 1:
            return super().forward(input)
        values = input if input.dtype == torch.float64 else input.float()
        count = values[:, 0].numel() * rank_count()
        mean = sum_over_ranks(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = sum_over_ranks((centred * centred).sum(dim=(0, 2, 3))) / count
        self._update(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        normalized = centred * scale[:, None, None]
        if self.bias is not None:
            normalized = normalized + self.bias[:, None, None]
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # a plain mean of all batches
            momentum = 1.0 / float(self.num_batches_tracked or 1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _GlobalBatchNormAct2d(GlobalBatchNorm2d):
    """timm's BatchNorm with an activation inside."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


class GlobalDropout(nn.Dropout):
    """Dropout whose mask is this rank's part of the mask that one process would draw.

    The ranks' parts of the batch lie one after the other, and torch's generators are seeded alike
    on all ranks. On the CPU the mask equals that of ``nn.Dropout`` bit for bit.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drops elements of float [B, ...]."""
        if not self.training or self.p == 0.0 or rank_count() == 1:
            return super().forward(input)
        first = rank() * len(input)
        whole = _empty_like(input, len(input) * rank_count()).bernoulli_(1.0 - self.p)
        return input * whole[first : first + len(input)].div_(1.0 - self.p)


def synchronize(model: _Model, device: torch.device) -> _Model:
    """Lets BatchNorm and dropout of a model see the batch of all ranks; see ``ranks``.

    Parameters, buffers and the names of both stay; with one rank nothing happens.

    Args:
        model: it is changed.
        device: where it trains; on CUDA torch's ``SyncBatchNorm`` is used.

    Returns:
        The model.

    Raises:
        ValueError: it has a kind of BatchNorm for which this is not known.
    """
    if rank_count() == 1:
        return model
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d and device.type == "cuda":
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
            else:
                _exchange_class(child)
    return model


def _exchange_class(module: nn.Module) -> None:
    """Gives a module the class that does the same for all ranks; its content stays."""
    if type(module) is nn.Dropout:
        module.__class__ = GlobalDropout
    elif type(module) is nn.BatchNorm2d:
        module.__class__ = GlobalBatchNorm2d
    elif isinstance(module, nn.BatchNorm2d) and hasattr(module, "act") and hasattr(module, "drop"):
        module.__class__ = _GlobalBatchNormAct2d
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise ValueError(
            f"the network has {type(module).__name__}, which cannot be synchronised over several "
            "processes; take another --backbone or train in one process"
        )


def _empty_like(values: Tensor, count: int) -> Tensor:
    """Uninitialised [count, ...], laid out in memory as ``values`` is."""
    layout = torch.contiguous_format
    if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
        layout = torch.channels_last
    shape = (count, *values.shape[1:])
    return torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=layout)
