"""Learning rate: linear warm-up, then half a cosine to zero."""

from __future__ import annotations

import math

from ignite.engine import Engine, Events
from torch.optim import Optimizer

__all__ = ["WarmupCosine", "warmup_cosine_factor"]


def warmup_cosine_factor(step: int, warmup: int, total: int) -> float:
    """Factor of the initial learning rate.

    It rises as (step + 1) / warmup up to 1, then follows half a cosine (Loshchilov and Hutter
    2017, arXiv:1608.03983, one period) that would reach 0 at ``step == total``.

    Args:
        step: optimisation steps made so far, from 0.
        warmup: steps of the rise; 0 for none.
        total: steps of the whole run.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class WarmupCosine:
    """Sets the learning rate of every parameter group before each iteration.

    The rate is a function of the iteration, so there is no state to save, and every group keeps
    its ratio to the others.

    Args:
        optimizer: its groups' rates at construction are the initial rates.
        warmup: iterations of linear warm-up.
        total: iterations of the whole run.

    Raises:
        ValueError: the warm-up is negative or not shorter than the run.

    Example:
        >>> WarmupCosine(optimizer, warmup=1000, total=50000).attach(trainer)
    """

    def __init__(self, optimizer: Optimizer, *, warmup: int, total: int) -> None:
        if not 0 <= warmup < total:
            raise ValueError(
                f"--warmup-iters {warmup} is not between 0 and --num-steps {total}; lower it"
            )
        self.optimizer = optimizer
        self.warmup = warmup
        self.total = total
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def attach(self, engine: Engine) -> None:
        """Sets the rates when an iteration starts and reports them when it ends."""
        engine.add_event_handler(Events.ITERATION_STARTED, self.set_rates)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._report)

    def set_rates(self, engine: Engine) -> None:
        """Sets the rates of the current iteration."""
        factor = warmup_cosine_factor(engine.state.iteration - 1, self.warmup, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _report(self, engine: Engine) -> None:
        for position, group in enumerate(self.optimizer.param_groups):
            engine.state.output[f"lr/{group.get('name', position)}"] = group["lr"]
