"""Gradient clipping by global norm."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from ignite_salak.events import TrainingEvents

__all__ = ["GradientClipper"]


class GradientClipper:
    """Scales the gradients so that their global L2 norm is at most ``max_norm``.

    The norm before clipping is reported as "grad_norm" in the step's output.

    Args:
        model: whose gradients are clipped; its parameters are listed at the first clipping.
        max_norm: largest norm; infinity only measures.

    Raises:
        ValueError: ``max_norm`` is not positive.

    Example:
        >>> GradientClipper(model, max_norm=10.0).attach(trainer)
    """

    def __init__(self, model: nn.Module, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"--gradient-clip {max_norm} is not positive")
        self.model = model
        self.max_norm = max_norm
        self._parameters: list[nn.Parameter] = []
        self._norm: Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Clips after the backward pass, reports after the iteration."""
        engine.add_event_handler(TrainingEvents.BACKWARD_COMPLETED, self.clip)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._report)

    def clip(self) -> None:
        """Clips the current gradients."""
        if not self._parameters:
            self._parameters = list(self.model.parameters())
        self._norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.max_norm)

    def _report(self, engine: Engine) -> None:
        if self._norm is not None:
            engine.state.output["grad_norm"] = self._norm
