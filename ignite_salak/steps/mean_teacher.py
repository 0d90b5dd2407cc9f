"""V4's way of learning: the averaged model labels weak views, the student learns on strong ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from ignite.engine import Engine
from torch import Tensor, nn
from torch.optim import Optimizer

from ignite_salak.alignment import DistributionAlignment
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss, consistency_loss
from ignite_salak.pseudo_labels import PseudoLabels, content_mask, select_pseudo_labels
from ignite_salak.steps.counts import no_counts, pseudo_label_counts
from ignite_salak.steps.descent import descend, divide
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.steps.pools import forward_pools, labeled_view
from ignite_salak.steps.strong_views import StrongViews
from ignite_salak.steps.views import Views
from ignite_salak.symmetry import SYMMETRIES, RandomSymmetries
from ignite_salak.thresholds import Thresholds
from ignite_salak.voting import disagreement, vote

__all__ = ["AlignedModel", "MeanTeacherStep", "ramp_up"]

_LEAST = 1e-12


def ramp_up(iteration: int, length: int) -> float:
    """Factor that rises from about 0 to 1 as exp(-5 (1 - t)^2), t = iteration / length.

    Laine and Aila 2017 (arXiv:1610.02242), section 3.

    Args:
        iteration: from 1.
        length: iteration from which the factor is 1; 0 for none.
    """
    if iteration >= length:
        return 1.0
    return math.exp(-5.0 * (1.0 - iteration / length) ** 2)


class MeanTeacherStep:
    """One optimisation step of V4.

    The teacher, an exponential average of the student (Tarvainen and Valpola 2017,
    arXiv:1703.01780), votes on a weak view of the unlabelled patches; votes that reach the
    threshold of their class become labels of a strong view of the same pixels (Sohn et al. 2020,
    arXiv:2001.07685). The loss of the pseudo-labels is divided by all pixels with content, kept or
    not, so that it stays small while the teacher is unsure. The whole loss is
    (supervised + weight * ramp * pseudo-labelled) / 2.

    Args:
        model: the student; returns logits [N, B, C, H, W] for RGB images [B, 3, H, W] in 0-1; in
            ``DistributedDataParallel`` where there are several ranks.
        teacher: its average, such as ``EMAUpdater.model``; only read.
        optimizer: of the student's parameters.
        loss: for labelled patches.
        thresholds: confidence from which a pixel becomes a pseudo-label; they see every batch.
        views: the weak views.
        strong: makes the strong views.
        weight: factor of the pseudo-labels' loss; 0 switches self-training off.
        ramp: iterations over which that factor grows.
        alignment: shifts the teacher's votes towards the classes' shares, or None.
        turning: flips and turns the teacher's view anew at every iteration and its vote back, after
            TCSM (Li et al. 2019, arXiv:1903.00348); the mean counts where it draws several ways to
            do so. None lets the teacher see the student's weak view. Mistakes change when an image
            is turned, so that teacher and student confirm fewer of each other's than on one and
            the same view.
        doubt: weigh every pseudo-label by exp(-d), d the disagreement of the teacher's heads:
            entropy of their mean minus mean of their entropies.
        accumulation: parts into which a batch is cut.
        device: where the models are.
        precision: "fp32" or "bf16".

    The step returns what ``SelfTrainingStep`` does; "st" is the loss of the pseudo-labels before
    its factor, and "st_weight" that factor.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        optimizer: Optimizer,
        loss: CombinedLoss,
        *,
        thresholds: Thresholds,
        views: Views,
        strong: StrongViews,
        weight: float = 1.0,
        ramp: int = 0,
        alignment: DistributionAlignment | None = None,
        turning: RandomSymmetries | None = None,
        doubt: bool = False,
        accumulation: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if weight < 0:
            raise ValueError(f"--st-loss-weight {weight} is negative")
        if accumulation < 1:
            raise ValueError(f"--grad-accumulation {accumulation} is not at least 1")
        self.model = model
        self.teacher = teacher
        self.optimizer = optimizer
        self.loss = loss
        self.thresholds = thresholds
        self.views = views
        self.strong = strong
        self.weight = weight
        self.ramp = ramp
        self.alignment = alignment
        self.turning = turning
        self.doubt = doubt
        self.accumulation = accumulation
        self.device = device
        self.precision = precision

    def __call__(self, engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Trains on one batch of ``data.loaders.TrainingStream``."""
        iteration = engine.state.iteration
        pseudo = None
        if self.weight > 0 and "unlabeled" in batch:
            plain = image_to_device(batch["unlabeled"]["image"], self.device)
            weak = self.views.draw(plain, iteration, "unlabeled").warp_image(plain)
            pseudo, weights, split = self.pseudo_label(weak, iteration)
            engine.state.pseudo_labels = pseudo
            engine.fire_event(TrainingEvents.PSEUDO_LABELED)
        images, target = labeled_view(batch["labeled"], self.views, iteration, self.device)
        counts = no_counts(len(self.thresholds.values), self.device)
        if pseudo is None:
            pools = [images[:, None], target[:, None], torch.ones_like(target[:, None]).float()]
        else:
            unlabeled = (weak, pseudo.labels, weights)
            strong = self.strong(iteration, unlabeled, (images, target))
            labeled = (images, target, torch.ones_like(weights))
            pools = [torch.stack(pair, dim=1) for pair in zip(labeled, strong, strict=True)]
            counts = pseudo_label_counts(pseudo, split)
        engine.fire_event(TrainingEvents.VIEWS_READY)
        factor = self.weight * ramp_up(iteration, self.ramp)

        def losses(images: Tensor, targets: Tensor, weights: Tensor) -> dict[str, Tensor]:
            return self._losses(images, targets, weights, factor)

        parts = divide(pools, self.accumulation)
        found = descend(engine, self.model, self.optimizer, parts, losses)
        return {**found, **counts, "st_weight": torch.full((), factor)}

    @torch.no_grad()
    def pseudo_label(self, images: Tensor, iteration: int) -> tuple[PseudoLabels, Tensor, Tensor]:
        """Lets the teacher vote.

        Args:
            images: float32 [B, 3, S, S] in 0-1; black pixels have no content.
            iteration: the current one.

        Returns:
            The pseudo-labels; weights of their losses, float32 [B, S, S]; and the share of pixels
            on which the teacher's heads, or its views, differ, 0-d.
        """
        valid = content_mask(images)
        turns = SYMMETRIES[:1] if self.turning is None else self.turning.draw(iteration)
        self.teacher.eval()
        with autocast(self.device, self.precision):
            logits = torch.cat([turn.undo(self.teacher(turn.apply(images))) for turn in turns])
        probabilities = vote(logits)
        weights = torch.ones_like(probabilities[:, 0])
        if self.doubt:
            weights = torch.exp(-_doubt(logits, probabilities))
        if self.alignment is not None:
            probabilities = self.alignment(probabilities, valid)
        pseudo = select_pseudo_labels(probabilities, self.thresholds.values, valid)
        self.thresholds.update(probabilities, valid, iteration)
        return pseudo, weights, disagreement(logits, valid)

    def _losses(
        self, images: Tensor, targets: Tensor, weights: Tensor, factor: float
    ) -> dict[str, Tensor]:
        """One forward pass over [B, P, ...] of P pools."""
        logits = forward_pools(self.model, images, self.device, self.precision)
        parts = self.loss(logits[:, :, 0], targets[:, 0])
        supervised = parts.pop("total")
        if self.strong.paste is not None:
            self.strong.paste.update(vote(logits[:, :, 0].detach()), targets[:, 0])
        if targets.shape[1] == 1:
            return {"loss": supervised, **parts, "st": torch.zeros_like(supervised)}
        valid = content_mask(images[:, 1])
        st = consistency_loss(logits[:, :, 1], targets[:, 1], weights[:, 1], valid)
        return {"loss": 0.5 * (supervised + factor * st), **parts, "st": st}


class AlignedModel(nn.Module):
    """Shows a teacher's aligned vote as the logits of one head, for panels and judgements.

    Args:
        model: returns logits [N, B, C, H, W]; shared, not copied.
        alignment: its factors of the last batch are used; or None.
    """

    def __init__(self, model: nn.Module, alignment: DistributionAlignment | None) -> None:
        super().__init__()
        self.model = model
        self.alignment = alignment

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits [1, B, C, H, W], float32, of which the softmax is the aligned vote."""
        logits = vote(self.model(images)).clamp_min(_LEAST).log()
        if self.alignment is not None:
            logits = logits + self.alignment.factors.log()[:, None, None]
        return logits[None]


def _doubt(logits_NBCHW: Tensor, mean_BCHW: Tensor) -> Tensor:
    """Entropy of the heads' mean minus mean of their entropies, float32 [B, H, W], 0 or more."""
    each = logits_NBCHW.float().log_softmax(dim=2)
    inside = -(each.exp() * each).sum(dim=2).mean(dim=0)
    return (-(mean_BCHW * mean_BCHW.clamp_min(_LEAST).log()).sum(dim=1) - inside).clamp_min(0.0)
