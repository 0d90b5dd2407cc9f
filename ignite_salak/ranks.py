"""The processes ("ranks") that train one model together: which one this is, and sums over all.

Without ``torch.distributed`` there is one rank, and everything here does nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["is_first", "rank", "rank_count", "sum_over_ranks", "unwrap", "without_averaging"]


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _several() else 0


def rank_count() -> int:
    """Number of processes."""
    return dist.get_world_size() if _several() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def sum_over_ranks(values: Tensor) -> Tensor:
    """Adds up every element over all ranks; all of them must call it, in the same order.

    It can be differentiated, where each rank computes the same scalar from the sums and gradients
    are averaged over the ranks afterwards, as ``DistributedDataParallel`` does: the result is then
    the gradient of that scalar.

    Args:
        values: any shape and dtype, the same on every rank.

    Returns:
        The sums, of the same shape; ``values`` itself where there is one rank.
    """
    return _Sum.apply(values) if rank_count() > 1 else values


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside ``DistributedDataParallel``, or the model itself."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def without_averaging(model: nn.Module) -> AbstractContextManager:
    """Returns a context whose backward passes leave the gradients of the ranks apart."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total
