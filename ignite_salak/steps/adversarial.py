"""S4GAN's way of learning: a discriminator says which unlabelled patches to learn from.

Shapes: B batch, P pools (labelled, unlabelled), C classes, S side of the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim import Optimizer

from ignite_salak.classes import BACKGROUND, IGNORE_INDEX
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.pseudo_labels import PseudoLabels, content_mask, select_pseudo_labels
from ignite_salak.ranks import rank_count, sum_over_ranks, unwrap, without_averaging
from ignite_salak.steps.counts import no_counts
from ignite_salak.steps.descent import descend, divide
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.steps.pools import forward_pools, labeled_view
from ignite_salak.steps.views import Views
from ignite_salak.voting import vote

__all__ = ["AdversarialStep", "linear_threshold"]


def linear_threshold(iteration: int, total: int, bounds: tuple[float, float]) -> float:
    """Score that a patch must reach: the first bound at iteration 1, the second at the last.

    Args:
        iteration: the current one, from 1.
        total: iterations of the whole run.
        bounds: threshold at the beginning and at the end.
    """
    first, last = bounds
    return first + (last - first) * min(1.0, (iteration - 1) / max(1, total - 1))


@dataclass(frozen=True)
class _Seen:
    """What one forward pass leaves to the discriminator and to the counts.

    Attributes:
        images: views of both pools, [B, 2, 3, S, S].
        maps: true label maps and made-up ones, [B, 2, C, S, S], without gradient.
        pseudo: what the student learns from by itself.
        content: unlabelled pixels with content, int64 0-d.
    """

    images: Tensor
    maps: Tensor
    pseudo: PseudoLabels
    content: Tensor


class AdversarialStep:
    """One optimisation step of S4GAN, of the segmentation network and of its discriminator.

    Mittal, Tatarchenko and Brox 2019 (arXiv:1908.05724), section 3.1, without the classification
    branch. The segmentation network's loss is cross-entropy on the labelled patches, plus

    - feature matching: the mean absolute difference between the discriminator's mean features of
      (labelled image, true label map) and of (unlabelled image, probabilities);
    - self-training: cross-entropy against the network's own argmax on the unlabelled patches whose
      probabilities get a score from the threshold on.

    Then the discriminator learns to give the true maps 1 and the others 0. It keeps its dropout
    whenever it is asked. Before its start iteration, training is supervised only and it rests.

    Deviations from the authors' program: both pools go through one forward pass (one mixture for
    BatchNorm); the discriminator's true maps are those of this batch, not of another one; pixels
    without content are 0 in both kinds of maps, since padding alone would tell them apart; the
    background and pixels without content are never learnt from; images are not stretched to 0-1.

    Args:
        model: returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1; where there are
            several ranks, in ``DistributedDataParallel``, as the discriminator.
        optimizer: of the model's parameters.
        discriminator: returns log-odds [B] and features [B, F] for images and maps.
        discriminator_optimizer: of the discriminator's parameters.
        loss: for labelled patches.
        self_training_loss: for the network's own labels.
        num_classes: C.
        views: the random views, one per patch of either pool.
        total: iterations of the run.
        thresholds: score from which a patch is learnt from, at the first and the last iteration.
        weight: factor of the self-training loss.
        matching_weight: factor of the feature matching loss.
        start_iteration: first iteration of the discriminator.
        accumulation: parts into which a batch is cut; the means of both networks' losses are those
            of a part.
        device: where both networks are.
        precision: "fp32" or "bf16".

    Raises:
        ValueError: a number is out of range.

    The step returns detached 0-d tensors: "loss", "ce", "fm" (feature matching) and "st"
    (self-training) before their factors, "st_px" (pixels learnt from, of all ranks), "st_share" (of
    the unlabelled pixels with content), and "st_px_per_class", int64 [C]; from the start iteration
    on also "d_loss", "d_real" and "d_fake", the discriminator's loss and its mean scores of the
    true and of the made-up maps, before its own optimizer step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        loss: CombinedLoss,
        self_training_loss: CombinedLoss,
        *,
        num_classes: int,
        views: Views,
        total: int,
        thresholds: tuple[float, float] = (0.6, 0.6),
        weight: float = 1.0,
        matching_weight: float = 0.1,
        start_iteration: int = 1,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        for flag, value in (("st", weight), ("fm", matching_weight)):
            if value < 0:
                raise ValueError(f"--{flag}-loss-weight {value} is negative")
        if min(thresholds) < 0:
            raise ValueError(
                f"--st-threshold {thresholds[0]} {thresholds[1]}: none may be negative"
            )
        if accumulation < 1:
            raise ValueError(f"--grad-accumulation {accumulation} is not at least 1")
        self.model = model
        self.optimizer = optimizer
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.loss = loss
        self.self_training_loss = self_training_loss
        self.num_classes = num_classes
        self.views = views
        self.total = total
        self.thresholds = thresholds
        self.weight = weight
        self.matching_weight = matching_weight
        self.start_iteration = start_iteration
        self.accumulation = accumulation
        self.device = device
        self.precision = precision

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains both networks on one batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        pools = [labeled_view(batch["labeled"], self.views, iteration, self.device)]
        if iteration >= self.start_iteration and "unlabeled" in batch:
            pools.append(self._unlabeled_view(batch["unlabeled"], iteration))
        images, targets = (torch.stack(pool, dim=1) for pool in zip(*pools, strict=True))
        engine.fire_event(TrainingEvents.VIEWS_READY)
        threshold = linear_threshold(iteration, self.total, self.thresholds)
        seen: list[_Seen] = []

        def losses(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
            return self._losses(images, targets, threshold, seen)

        parts = divide([images, targets], self.accumulation)
        found = descend(engine, self.model, self.optimizer, parts, losses)
        if not seen:
            return {**found, **no_counts(self.num_classes, self.device)}
        return {**found, **_counts(seen), **self._train_discriminator(seen)}

    def _unlabeled_view(
        self, unlabeled: dict[str, Tensor], iteration: int
    ) -> tuple[Tensor, Tensor]:
        """The view, and in place of labels 255 where it has no content."""
        images = image_to_device(unlabeled["image"], self.device)
        blank = torch.where(content_mask(images), BACKGROUND, IGNORE_INDEX)
        geometry = self.views.draw(images, iteration, "unlabeled")
        return geometry.warp_image(images), geometry.warp_labels(blank)

    def _losses(
        self, images: Tensor, targets: Tensor, threshold: float, seen: list[_Seen]
    ) -> dict[str, Tensor]:
        """One forward pass over images [B, P, 3, S, S] and targets [B, P, S, S]."""
        logits = forward_pools(self.model, images, self.device, self.precision)
        parts = self.loss(logits[:, :, 0], targets[:, 0])
        loss = parts.pop("total")
        if targets.shape[1] == 1:
            zero = torch.zeros_like(loss)
            return {"loss": loss, **parts, "fm": zero, "st": zero}
        probabilities = vote(logits[:, :, 1])
        content = targets[:, 1] != IGNORE_INDEX
        made_up = probabilities * content[:, None]
        maps = torch.stack([self._true_maps(targets[:, 0]), made_up], dim=1)
        unwrap(self.discriminator).requires_grad_(False)
        odds, features = self._judge(unwrap(self.discriminator), images, maps)
        matching = _feature_matching(features)
        passed = odds[:, 1].detach().sigmoid() >= threshold
        pseudo = self._own_labels(probabilities.detach(), content & passed[:, None, None])
        seen.append(_Seen(images, maps.detach(), pseudo, content.sum()))
        st = self.self_training_loss(logits[:, :, 1], pseudo.labels)["total"]
        loss = loss + self.matching_weight * matching + self.weight * st
        return {"loss": loss, **parts, "fm": matching, "st": st}

    def _true_maps(self, target: Tensor) -> Tensor:
        """One-hot labels [B, C, S, S] of class indices [B, S, S]; 0 in all classes for 255."""
        classes = torch.arange(self.num_classes, device=target.device)
        return (target[:, None] == classes[:, None, None]).float()

    def _own_labels(self, probabilities: Tensor, valid: Tensor) -> PseudoLabels:
        none = torch.zeros(self.num_classes, device=probabilities.device)
        return select_pseudo_labels(probabilities, none, valid)

    def _judge(self, judge: nn.Module, images: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds [B, 2] and features [B, 2, F] of images and maps [B, 2, ...]."""
        judge.train()
        with autocast(self.device, self.precision):
            odds, features = judge(images.flatten(0, 1), maps.flatten(0, 1))
        return odds.unflatten(0, maps.shape[:2]), features.unflatten(0, maps.shape[:2])

    def _train_discriminator(self, seen: Sequence[_Seen]) -> dict[str, Tensor]:
        unwrap(self.discriminator).requires_grad_(True)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        found = []
        for number, part in enumerate(seen, start=1):
            last = number == len(seen)
            with nullcontext() if last else without_averaging(self.discriminator):
                odds, _ = self._judge(self.discriminator, part.images, part.maps)
                sums = _discriminator_sums(odds)
                (sums[0] / len(seen)).backward()
            found.append(sums.detach())
        self.discriminator_optimizer.step()
        return dict(zip(("d_loss", "d_real", "d_fake"), torch.stack(found).mean(0), strict=True))


def _feature_matching(features: Tensor) -> Tensor:
    """Mean absolute difference of the mean features [B, 2, F] of true and made-up maps, 0-d."""
    true, made_up = sum_over_ranks(features.sum(dim=0)) / (len(features) * rank_count())
    return (true - made_up).abs().mean()


def _discriminator_sums(odds: Tensor) -> Tensor:
    """Means over all ranks from log-odds [B, 2]: loss, score of true, of made-up maps, [3]."""
    truth = torch.zeros_like(odds)
    truth[:, 0] = 1.0
    losses = binary_cross_entropy_with_logits(odds, truth, reduction="none").mean(dim=1)
    values = torch.cat([losses[:, None], odds.sigmoid()], dim=1)
    return sum_over_ranks(values.sum(dim=0)) / (len(odds) * rank_count())


def _counts(seen: Sequence[_Seen]) -> dict[str, Tensor]:
    """Counts over all parts and ranks."""
    content = torch.stack([part.content for part in seen]).sum()
    per_class = torch.stack([part.pseudo.per_class for part in seen]).sum(dim=0)
    content, per_class = sum_over_ranks(torch.cat([content[None], per_class])).split(
        [1, len(per_class)]
    )
    kept = per_class.sum().float()
    return {
        "st_px": kept,
        "st_share": kept / content[0].clamp_min(1),
        "st_px_per_class": per_class,
    }
