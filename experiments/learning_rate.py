"""The learning rate that goes with a batch, and a hint where only one of them was changed."""

from __future__ import annotations

import math

from experiments.options import ScheduleOptions
from ignite_salak.ranks import is_first, rank_count

__all__ = [
    "SMALLEST_PART",
    "equal_parts",
    "learning_rate_hint",
    "print_learning_rate_hint",
    "scaled_learning_rate",
]

SMALLEST_PART = 2
"""BatchNorm has nothing to normalise with in a part of one patch."""


def learning_rate_hint(
    batch_size: int,
    learning_rate: float,
    *,
    optimizer: str = "sgd",
    grad_accumulation: int = 1,
    ranks: int = 1,
    default_batch_size: int = ScheduleOptions.batch_size,
    default_learning_rate: float = ScheduleOptions.learning_rate,
) -> str | None:
    """Returns what to print where the batch was changed, but not the learning rate made for it.

    Args:
        batch_size: the batch of one optimizer step, of all ranks together.
        learning_rate: that in use.
        optimizer: "sgd" or "adamw", see ``scaled_learning_rate``.
        grad_accumulation: parts into which every rank cuts its share of the batch.
        ranks: number of processes that share the batch.
        default_batch_size: the recipe's batch.
        default_learning_rate: the recipe's learning rate, for that batch.

    Returns:
        One line, or None where both or none were changed.

    Raises:
        ValueError: the batch is empty.
    """
    if batch_size == default_batch_size or learning_rate != default_learning_rate:
        return None
    scaled = scaled_learning_rate(learning_rate, default_batch_size, batch_size, optimizer)
    rule = "square-root" if optimizer == "adamw" else "linear"
    hint = (
        f"hint: --learning-rate {learning_rate:g} was made for --batch-size {default_batch_size}; "
        f"for --batch-size {batch_size}, --learning-rate {scaled:.3g} is the usual choice "
        f"({rule} rule)"
    )
    least = math.ceil(grad_accumulation * default_batch_size / batch_size)
    parts = equal_parts(default_batch_size, ranks, least) if batch_size < default_batch_size else 0
    if parts:
        hint += (
            f". Or keep the recipe, in no more memory: --batch-size {default_batch_size} "
            f"--grad-accumulation {parts}"
        )
    return hint


def print_learning_rate_hint(schedule: ScheduleOptions) -> None:
    """Prints ``learning_rate_hint``, where there is one; of several ranks, only the first does."""
    hint = learning_rate_hint(
        schedule.batch_size,
        schedule.learning_rate,
        optimizer=schedule.optimizer,
        grad_accumulation=schedule.grad_accumulation,
        ranks=rank_count(),
    )
    if hint is not None and is_first():
        print(hint)


def scaled_learning_rate(
    learning_rate: float, old_batch: int, new_batch: int, optimizer: str
) -> float:
    """Scales a learning rate with the batch, for as many epochs as before.

    SGD: in proportion (Goyal et al. 2017, arXiv:1706.02677). AdamW: with the square root (Malladi
    et al. 2022, arXiv:2205.10287, whose rule also changes both betas and epsilon; here they stay).

    Args:
        learning_rate: good for ``old_batch``.
        old_batch: patches in one optimizer step.
        new_batch: patches in one optimizer step.
        optimizer: "sgd" or "adamw".

    Raises:
        ValueError: a batch is empty.
    """
    if old_batch < 1 or new_batch < 1:
        raise ValueError(f"--batch-size {min(old_batch, new_batch)} is not at least 1")
    ratio = new_batch / old_batch
    return learning_rate * (math.sqrt(ratio) if optimizer == "adamw" else ratio)


def equal_parts(batch_size: int, ranks: int, least: int) -> int:
    """Returns the smallest number of equal parts into which each rank may cut its patches.

    Args:
        batch_size: patches of one optimizer step, of all ranks together.
        ranks: number of processes.
        least: no fewer parts than this.

    Returns:
        The number, or 0 if there is none that leaves at least ``SMALLEST_PART`` patches in a part.
    """
    share, rest = divmod(batch_size, ranks)
    allowed = range(least, share // SMALLEST_PART + 1)
    return 0 if rest else next((parts for parts in allowed if share % parts == 0), 0)
