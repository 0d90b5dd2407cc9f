"""Learning from labelled patches alone: the bound that self-training has to beat."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps.descent import descend, divide
from ignite_salak.steps.pools import forward_pools, labeled_view
from ignite_salak.steps.views import Views

__all__ = ["SupervisedStep"]


class SupervisedStep:
    """One optimisation step on labelled patches.

    It computes what ``SelfTrainingStep`` of weight 0 computes, bit for bit, and looks at no
    unlabelled patch.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1; where there are
            several ranks, in ``DistributedDataParallel``.
        optimizer: of the model's parameters.
        loss: for the labels.
        views: the random views.
        accumulation: parts into which a batch is cut, one forward and backward pass each.
        device: where the model is.
        precision: "fp32" or "bf16".

    Where there are several ranks, each is called with its part of the batch, and what the step
    returns is about the whole of it: detached 0-d tensors, "loss" and its parts ("ce", "dice",
    "focal").

    Raises:
        ValueError: ``accumulation`` is not at least 1.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: CombinedLoss,
        *,
        views: Views,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if accumulation < 1:
            raise ValueError(f"--grad-accumulation {accumulation} is not at least 1")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.views = views
        self.accumulation = accumulation
        self.device = device
        self.precision = precision

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains on the labelled patches of a batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        view = labeled_view(batch["labeled"], self.views, iteration, self.device)
        engine.fire_event(TrainingEvents.VIEWS_READY)
        parts = divide([tensor[:, None] for tensor in view], self.accumulation)
        return descend(engine, self.model, self.optimizer, parts, self._losses)

    def _losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One forward pass over images [B, 1, 3, S, S] and targets [B, 1, S, S]."""
        logits = forward_pools(self.model, images, self.device, self.precision)
        parts = self.loss(logits[:, :, 0], targets[:, 0])
        loss = parts.pop("total")
        return {"loss": loss, **parts}
