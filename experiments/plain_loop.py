"""V3 as a straightforward script would train it: what the benchmark compares with.

The network, the losses and the random views are the library's, so that the mathematics is the same;
everything around them is done in the most direct way, none of it slowed down on purpose: float32,
one process that decodes, then augments patch by patch, then trains; a forward pass for each kind of
patch; every number read at every step; an evaluation of all patches that keeps all predictions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from experiments.options import ScheduleOptions
from ignite_salak.augment import Geometry
from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.data.datasets import PatchDataset, collate
from ignite_salak.handlers import ema_decay, warmup_cosine_factor
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.deeplabv3plus import DeepLabV3Plus
from ignite_salak.pseudo_labels import content_mask, select_pseudo_labels
from ignite_salak.randomness import derive_seed
from ignite_salak.steps.views import Views
from ignite_salak.voting import vote

__all__ = ["PlainLoop"]


class PlainLoop:
    """Trains and evaluates in plain PyTorch.

    Args:
        model: on the device, float32.
        loss: for labelled patches.
        self_training_loss: for pseudo-labels.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class.
        views: the random views; their seed is that of the run.
        schedule: learning rate, clipping, averaging.
        weight: factor of the self-training loss; 0 switches self-training off.
        device: where the model is.

    Attributes:
        average: the averaged model, which is evaluated.
        optimizer: SGD with momentum 0.9, or AdamW, as torch makes them by default.
    """

    def __init__(
        self,
        model: DeepLabV3Plus,
        loss: CombinedLoss,
        self_training_loss: CombinedLoss,
        *,
        thresholds: list[float],
        views: Views,
        schedule: ScheduleOptions,
        weight: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.average = copy.deepcopy(model)
        self.loss = loss
        self.self_training_loss = self_training_loss
        self.thresholds = torch.tensor(thresholds, device=device)
        self.views = views
        self.schedule = schedule
        self.weight = weight
        self.device = device
        groups = model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
        self.optimizer: torch.optim.Optimizer
        if schedule.optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, weight_decay=schedule.weight_decay)
        else:
            self.optimizer = torch.optim.SGD(
                groups, momentum=0.9, weight_decay=schedule.weight_decay
            )
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def train(self, batches: Iterable[dict[str, Any]], steps: int) -> Iterator[dict[str, float]]:
        """Trains on batches of ``data.loaders.TrainingStream``; yields the losses of every step."""
        for iteration, batch in zip(range(1, steps + 1), batches, strict=False):
            torch.manual_seed(derive_seed(self.views.seed, iteration, "iteration"))
            self.set_rates(iteration)
            self.model.train()

            images, masks = batch["labeled"]["image"].float() / 255, batch["labeled"]["mask"].long()
            images, masks = self.augment(images, masks, iteration, "labeled")
            losses = self.loss(self.model(images.to(self.device)), masks.to(self.device))
            loss = losses.pop("total")
            st = torch.zeros(())
            if self.weight > 0 and "unlabeled" in batch:
                images = batch["unlabeled"]["image"].float() / 255
                labels = self.pseudo_label(images)
                images, labels = self.augment(images, labels, iteration, "unlabeled")
                logits = self.model(images.to(self.device))
                st = self.self_training_loss(logits, labels.to(self.device))["total"]
                loss = loss + self.weight * st

            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.schedule.gradient_clip)
            self.optimizer.step()
            self.update_average(iteration)
            numbers = {name: value.item() for name, value in losses.items()}
            yield {"loss": loss.item(), **numbers, "st": st.item()}

    def set_rates(self, iteration: int) -> None:
        """Warms up, then follows a cosine."""
        steps, warmup = self.schedule.num_steps, self.schedule.warmup_iters
        factor = warmup_cosine_factor(iteration - 1, warmup, steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def augment(
        self, images: Tensor, labels: Tensor, iteration: int, pool: str
    ) -> tuple[Tensor, Tensor]:
        """Warps patch by patch on the CPU.

        Args:
            images: float32 [B, 3, H, W].
            labels: int64 [B, H, W].
            iteration: the current one.
            pool: "labeled" or "unlabeled".

        Returns:
            The views, float32 [B, 3, S, S] and int64 [B, S, S].
        """
        drawn = self.views.draw(images, iteration, pool)
        warps = [Geometry(matrix[None], drawn.size) for matrix in drawn.matrices]
        warped = [warp.warp_image(images[i : i + 1]) for i, warp in enumerate(warps)]
        targets = [warp.warp_labels(labels[i : i + 1]) for i, warp in enumerate(warps)]
        return torch.cat(warped), torch.cat(targets)

    def pseudo_label(self, images: Tensor) -> Tensor:
        """Votes on plain images float32 [B, 3, H, W]; returns int64 [B, H, W] on the CPU."""
        self.model.eval()
        with torch.no_grad():
            images = images.to(self.device)
            probabilities = vote(self.model(images))
            pseudo = select_pseudo_labels(probabilities, self.thresholds, content_mask(images))
        self.model.train()
        return pseudo.labels.cpu()

    def update_average(self, iteration: int) -> None:
        """Moves the averaged model towards the trained one, tensor by tensor."""
        decay = ema_decay(iteration - 1, self.schedule.ema_decay)
        with torch.no_grad():
            current = self.model.state_dict()
            for name, averaged in self.average.state_dict().items():
                if averaged.is_floating_point():
                    averaged.mul_(decay).add_(current[name], alpha=1 - decay)
                else:
                    averaged.copy_(current[name])

    @torch.no_grad()
    def evaluate(self, patches: PatchDataset, batch_size: int) -> np.ndarray:
        """Keeps the predictions for all patches, then counts.

        Returns:
            Pixel counts, int64 [C, C], rows are the truth.
        """
        self.average.eval()
        predictions, masks = [], []
        for batch in DataLoader(patches, batch_size, collate_fn=collate):
            images = (batch["image"].float() / 255).to(self.device)
            predicted = vote(self.average(images)).argmax(dim=1)
            predictions.append(predicted.cpu().numpy().astype(np.uint8).ravel())
            masks.append(batch["mask"].numpy().ravel())
        prediction, truth = np.concatenate(predictions), np.concatenate(masks)
        counted = truth != IGNORE_INDEX
        classes = self.model.num_classes
        cells = truth[counted].astype(np.int64) * classes + prediction[counted]
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    def save(self, path: Path) -> None:
        """Writes what it takes to continue."""
        state = {name: getattr(self, name) for name in ("model", "average", "optimizer")}
        torch.save({name: part.state_dict() for name, part in state.items()}, path)
