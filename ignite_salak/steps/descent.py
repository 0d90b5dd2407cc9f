"""What every step does with its losses: backward passes, and one move of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.events import TrainingEvents
from ignite_salak.ranks import without_averaging

__all__ = ["descend", "divide"]


def divide(pools: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """Cuts a batch into equal parts.

    Args:
        pools: tensors [B, ...] of one batch.
        count: number of parts.

    Returns:
        One list of tensors [B / count, ...] per part.

    Raises:
        ValueError: B is not ``count`` times 2 or more.
    """
    size, rest = divmod(len(pools[0]), count)
    if rest or (count > 1 and size < 2):
        raise ValueError(
            f"--grad-accumulation {count} does not cut {len(pools[0])} patches (those of one "
            "process) into equal parts of at least 2"
        )
    return [list(part) for part in zip(*(pool.split(size) for pool in pools), strict=True)]


def descend(
    engine: Engine,
    model: nn.Module,
    optimizer: Optimizer,
    parts: Sequence[Sequence[Tensor]],
    losses: Callable[..., dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Sums the gradients of the parts of one batch and makes one optimizer step.

    Fires ``LOSS_COMPUTED`` for every part, then ``BACKWARD_COMPLETED`` and ``OPTIMIZER_STEPPED``.

    Args:
        engine: the trainer.
        model: the trained model, in ``DistributedDataParallel`` where there are several ranks.
        optimizer: of its parameters.
        parts: tensors of every part of the batch.
        losses: called with the tensors of one part; returns 0-d tensors, "loss" among them.

    Returns:
        The mean of every loss over the parts, detached.
    """
    optimizer.zero_grad(set_to_none=True)
    found = []
    for part in parts[:-1]:
        with without_averaging(model):
            found.append(_backward(engine, losses(*part), len(parts)))
    found.append(_backward(engine, losses(*parts[-1]), len(parts)))
    engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
    optimizer.step()
    engine.fire_event(TrainingEvents.OPTIMIZER_STEPPED)
    if len(found) == 1:
        return found[0]
    return {name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]}


def _backward(engine: Engine, losses: dict[str, Tensor], parts: int) -> dict[str, Tensor]:
    engine.fire_event(TrainingEvents.LOSS_COMPUTED)
    (losses["loss"] / parts).backward()
    return {name: value.detach() for name, value in losses.items()}
