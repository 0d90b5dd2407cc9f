"""V3's way of learning: labelled patches, and unlabelled ones with the student's own votes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.pseudo_labels import PseudoLabels, content_mask, select_pseudo_labels
from ignite_salak.ranks import unwrap
from ignite_salak.steps.counts import no_counts, pseudo_label_counts
from ignite_salak.steps.descent import descend, divide
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.steps.pools import forward_pools, labeled_view
from ignite_salak.steps.views import Views
from ignite_salak.voting import disagreement, vote

__all__ = ["SelfTrainingStep"]


class SelfTrainingStep:
    """One optimisation step of V3; no discriminator.

    The student votes on the plain view of the unlabelled patches, without dropout and with its
    running BatchNorm statistics. Votes that reach the threshold of their class become labels,
    which are warped together with the patches into the view that the student trains on.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1; where there are
            several ranks, in ``DistributedDataParallel``.
        optimizer: of the model's parameters.
        loss: for labelled patches.
        self_training_loss: for pseudo-labels; without class weights, which would let one wrong
            pixel of a rare class outweigh hundreds.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class.
        views: the random views.
        weight: factor of the self-training loss; 0 switches self-training off.
        start_iteration: first iteration with self-training.
        accumulation: parts into which a batch is cut, one forward and backward pass each: less
            memory; BatchNorm and the losses' means are those of a part.
        device: where the model is.
        precision: "fp32" or "bf16".

    Where there are several ranks, each is called with its part of the batch, and what the step
    returns is about the whole of it.

    Attributes:
        vote: makes probabilities [B, C, H, W] of logits [N, B, C, H, W]; a recipe may have its own.

    The step returns detached 0-d tensors: "loss", the parts of the supervised loss ("ce", "dice",
    "focal"), "st" (the self-training loss before its weight), "st_px" (kept pixels of the batch,
    background and empty pixels never among them), "st_share" (of the pixels with content),
    "disagreement" (share of the plain pixels on which the heads differ), and "st_px_per_class",
    int64 [C].
    """

    vote = staticmethod(vote)

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: CombinedLoss,
        self_training_loss: CombinedLoss,
        *,
        thresholds: Sequence[float],
        views: Views,
        weight: float = 1.0,
        start_iteration: int = 500,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if weight < 0:
            raise ValueError(f"--st-loss-weight {weight} is negative")
        if accumulation < 1:
            raise ValueError(f"--grad-accumulation {accumulation} is not at least 1")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.self_training_loss = self_training_loss
        self.thresholds = torch.tensor(thresholds, dtype=torch.float32, device=device)
        self.views = views
        self.weight = weight
        self.start_iteration = start_iteration
        self.accumulation = accumulation
        self.device = device
        self.precision = precision

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains on one batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        unlabeled = None
        counts = no_counts(len(self.thresholds), self.device)
        if self.weight > 0 and iteration >= self.start_iteration and "unlabeled" in batch:
            plain = image_to_device(batch["unlabeled"]["image"], self.device)
            pseudo, split = self.pseudo_label(plain)
            unlabeled = (plain, pseudo.labels)
            counts = pseudo_label_counts(pseudo, split)
            engine.state.pseudo_labels = pseudo
            engine.fire_event(TrainingEvents.PSEUDO_LABELED)
        pools = [labeled_view(batch["labeled"], self.views, iteration, self.device)]
        if unlabeled is not None:
            geometry = self.views.draw(unlabeled[0], iteration, "unlabeled")
            pools.append((geometry.warp_image(unlabeled[0]), geometry.warp_labels(unlabeled[1])))
        images, targets = (torch.stack(pool, dim=1) for pool in zip(*pools, strict=True))
        engine.fire_event(TrainingEvents.VIEWS_READY)
        parts = divide([images, targets], self.accumulation)
        losses = descend(engine, self.model, self.optimizer, parts, self._losses)
        return {**losses, **counts}

    @torch.no_grad()
    def pseudo_label(self, images: Tensor) -> tuple[PseudoLabels, Tensor]:
        """Votes on plain images.

        Args:
            images: float32 [B, 3, H, W] in 0-1; black pixels have no content.

        Returns:
            The pseudo-labels, and the share of pixels on which the heads differ, 0-d.
        """
        valid = content_mask(images)
        model = unwrap(self.model).eval()
        with autocast(self.device, self.precision):
            logits = model(images)
        pseudo = select_pseudo_labels(self.vote(logits), self.thresholds, valid)
        return pseudo, disagreement(logits, valid)

    def _losses(self, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """One forward pass over images [B, P, 3, S, S] of P pools and targets [B, P, S, S]."""
        logits = forward_pools(self.model, images, self.device, self.precision)
        parts = self.loss(logits[:, :, 0], targets[:, 0])
        loss = parts.pop("total")
        if targets.shape[1] == 1:
            return {"loss": loss, **parts, "st": torch.zeros_like(loss)}
        st = self.self_training_loss(logits[:, :, 1], targets[:, 1])["total"]
        return {"loss": loss + self.weight * st, **parts, "st": st}
