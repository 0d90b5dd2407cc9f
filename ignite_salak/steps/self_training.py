"""V3's way of learning: labelled patches, and unlabelled ones with the student's own votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.augment import Geometry, RandomGeometry, draw_size
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.pseudo_labels import PseudoLabels, content_mask, select_pseudo_labels
from ignite_salak.randomness import torch_generator
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.voting import disagreement, vote

__all__ = ["SelfTrainingStep", "Views"]


@dataclass(frozen=True)
class Views:
    """The random views that the student trains on.

    Attributes:
        geometry: flips, scales and crops of the single patches.
        sizes: smallest and largest side of the views in pixels; one side per iteration is drawn.
        seed: seed of the run.
    """

    geometry: RandomGeometry
    sizes: tuple[int, int]
    seed: int

    def draw(self, images: Tensor, iteration: int, pool: str) -> Geometry:
        """Draws the warps of one batch [B, 3, H, W]; both pools get views of one side."""
        size = draw_size(*self.sizes, torch_generator(self.seed, iteration, "size"))
        generator = torch_generator(self.seed, iteration, "geometry", pool)
        count, _, height, width = images.shape
        return self.geometry.draw(count, height, width, size, generator)


class SelfTrainingStep:
    """One optimisation step of V3; no discriminator.

    The student votes on the plain view of the unlabelled patches, without dropout and with its
    running BatchNorm statistics. Votes that reach the threshold of their class become labels,
    which are warped together with the patches into the view that the student trains on.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1.
        optimizer: of the model's parameters.
        loss: for labelled patches.
        self_training_loss: for pseudo-labels; without class weights, which would let one wrong
            pixel of a rare class outweigh hundreds.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class.
        views: the random views.
        weight: factor of the self-training loss; 0 switches self-training off.
        start_iteration: first iteration with self-training.
        device: where the model is.
        precision: "fp32" or "bf16".

    The step returns detached 0-d tensors: "loss", the parts of the supervised loss ("ce", "dice",
    "focal"), "st" (the self-training loss before its weight), "st_px" (kept pixels of the batch,
    background and empty pixels never among them), "st_share" (of the pixels with content),
    "disagreement" (share of the plain pixels on which the heads differ), and "st_px_per_class",
    int64 [C].
    """

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
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if weight < 0:
            raise ValueError(f"--st-loss-weight {weight} is negative")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.self_training_loss = self_training_loss
        self.thresholds = torch.tensor(thresholds, dtype=torch.float32, device=device)
        self.views = views
        self.weight = weight
        self.start_iteration = start_iteration
        self.device = device
        self.precision = precision

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains on one batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        images, target = self._labeled_view(batch["labeled"], iteration)
        output: dict[str, Tensor] = {}
        pseudo_target = None
        if self.weight > 0 and iteration >= self.start_iteration and "unlabeled" in batch:
            plain = image_to_device(batch["unlabeled"]["image"], self.device)
            pseudo, output["disagreement"] = self.pseudo_label(plain)
            engine.state.pseudo_labels = pseudo
            engine.fire_event(TrainingEvents.PSEUDO_LABELED)
            geometry = self.views.draw(plain, iteration, "unlabeled")
            images = torch.cat([images, geometry.warp_image(plain)])
            pseudo_target = geometry.warp_labels(pseudo.labels)
            output |= _counts(pseudo)

        self.model.train()
        with autocast(self.device, self.precision):
            logits = self.model(images.contiguous(memory_format=torch.channels_last))
        parts = self.loss(logits[:, : len(target)], target)
        loss = parts.pop("total")
        if pseudo_target is None:
            output |= self._no_counts()
        else:
            output["st"] = self.self_training_loss(logits[:, len(target) :], pseudo_target)["total"]
            loss = loss + self.weight * output["st"]
        self._optimize(engine, loss)
        return {name: value.detach() for name, value in {"loss": loss, **parts, **output}.items()}

    @torch.no_grad()
    def pseudo_label(self, images: Tensor) -> tuple[PseudoLabels, Tensor]:
        """Votes on plain images.

        Args:
            images: float32 [B, 3, H, W] in 0-1; black pixels have no content.

        Returns:
            The pseudo-labels, and the share of pixels on which the heads differ, 0-d.
        """
        valid = content_mask(images)
        self.model.eval()
        with autocast(self.device, self.precision):
            logits = self.model(images)
        pseudo = select_pseudo_labels(vote(logits), self.thresholds, valid)
        return pseudo, disagreement(logits, valid)

    def _labeled_view(self, labeled: dict[str, Tensor], iteration: int) -> tuple[Tensor, Tensor]:
        images = image_to_device(labeled["image"], self.device)
        target = labeled["mask"].to(self.device, non_blocking=True).long()
        geometry = self.views.draw(images, iteration, "labeled")
        return geometry.warp_image(images), geometry.warp_labels(target)

    def _optimize(self, engine: Engine, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
        engine.fire_event(TrainingEvents.OPTIMIZER_STEPPED)

    def _no_counts(self) -> dict[str, Tensor]:
        zero = torch.zeros((), device=self.device)
        per_class = torch.zeros(len(self.thresholds), dtype=torch.long, device=self.device)
        return {"st": zero, "st_px": zero, "st_share": zero, "st_px_per_class": per_class}


def _counts(pseudo: PseudoLabels) -> dict[str, Tensor]:
    kept = pseudo.kept.float()
    return {
        "st_px": kept,
        "st_share": kept / pseudo.valid.clamp_min(1),
        "st_px_per_class": pseudo.per_class,
    }
