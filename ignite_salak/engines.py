"""Trainer and evaluator: ignite engines that only run a step; handlers do the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from torch import Tensor, nn

from ignite_salak.events import TrainingEvents
from ignite_salak.pseudo_labels import content_mask
from ignite_salak.randomness import derive_seed
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.voting import predict_once

__all__ = ["create_evaluator", "create_trainer"]


def create_trainer(
    step: Callable[[Engine, dict[str, Any]], dict[str, Tensor]], *, seed: int = 0
) -> Engine:
    """Creates an engine that runs ``step`` and can fire ``TrainingEvents``.

    Every iteration begins with torch's generators seeded from (seed, iteration), so dropout does
    not depend on what ran before.

    Args:
        step: called with (engine, batch); returns detached tensors by name.
        seed: seed of the run.

    Example:
        >>> trainer = create_trainer(step, seed=0)
        >>> WarmupCosine(optimizer, warmup=1000, total=50000).attach(trainer)
        >>> EMAUpdater(model).attach(trainer)
        >>> trainer.run(stream, max_epochs=1, epoch_length=50000)
    """
    trainer = Engine(step)
    trainer.register_events(*TrainingEvents)

    def reseed(engine: Engine) -> None:
        torch.manual_seed(derive_seed(seed, engine.state.iteration, "iteration"))

    trainer.add_event_handler(Events.ITERATION_STARTED, reseed)
    return trainer


def create_evaluator(
    model: nn.Module,
    metrics: Mapping[str, Metric],
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    predict: Callable[[nn.Module, Tensor], Tensor] = predict_once,
    shift: Callable[[Tensor], Tensor] | None = None,
) -> Engine:
    """Creates an engine that votes on whole patches at their own size.

    Its output is ``{"pred": int64 [B, H, W], "target": int64 [B, H, W], "label": int64 [B, H, W],
    "confidence": float32 [B, H, W], "content": bool [B, H, W]}``: "pred" is the map, "label" what
    would become a pseudo-label, the same without ``shift``, and the confidence its probability;
    pixels without content are padding or nodata. Where a batch has "source", the source image of
    every patch, integer [B], the output has it too.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1.
        metrics: metrics by name; they see the output.
        device: where the model is.
        precision: "fp32" or "bf16".
        predict: called with (model, images) to get probabilities [B, C, H, W], such as
            ``inference.tta.TestTimeAugmentation``.
        shift: called with these probabilities, returns those of the pseudo-labels.
    """

    @torch.no_grad()
    def evaluate(engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        model.eval()
        images = image_to_device(batch["image"], device)
        with autocast(device, precision):
            probabilities = predict(model, images)
        confidence, pred = probabilities.max(dim=1)
        label = pred
        if shift is not None:
            confidence, label = shift(probabilities).max(dim=1)
        sources = {"source": batch["source"]} if "source" in batch else {}
        return {
            "pred": pred,
            "target": batch["mask"].to(device, non_blocking=True).long(),
            "label": label,
            "confidence": confidence,
            "content": content_mask(images),
            **sources,
        }

    evaluator = Engine(evaluate)
    for name, metric in metrics.items():
        metric.attach(evaluator, name)
    return evaluator
