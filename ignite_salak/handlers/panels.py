"""Pictures of the same few patches at every evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.events import TrainingEvents
from ignite_salak.files import write_whole
from ignite_salak.handlers.evaluation import EvaluationResult
from ignite_salak.pictures import (
    Row,
    unlabeled_sheet,
    unlabeled_tiles,
    validation_sheet,
    validation_tiles,
)
from ignite_salak.pseudo_labels import content_mask, select_pseudo_labels
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.voting import predict_once

__all__ = ["Gallery", "Panels"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gallery:
    """The patches of one sheet.

    Attributes:
        patches: items ``{"image": uint8 [3, H, W], "mask": uint8 [H, W]}``, the mask only where
            there is one; items with "bad_file" are left out.
        names: one name per patch.
        size: how many of them are shown at most, those that are mostly padding last; None shows
            all.
    """

    patches: Dataset[dict[str, Any]] | Sequence[dict[str, Any]]
    names: Sequence[str]
    size: int | None = None

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns name and item of the patches that are shown."""
        named = [(name, self.patches[position]) for position, name in enumerate(self.names)]
        usable = [(name, item) for name, item in named if "bad_file" not in item]
        return sorted(usable, key=lambda pair: _mostly_padding(pair[1]))[: self.size]


class Panels:
    """Draws the same patches at every evaluation, and sets ``result.pictures``.

    Rows of "validation" are image, truth, prediction, confidence and errors of the evaluated
    model. Rows of "unlabeled" are image, prediction, confidence and what would be kept as
    pseudo-labels, all of the labelling model; without thresholds, the first three of the evaluated
    model. The sheets are also written as ``FOLDER/validation_000500.png`` and
    ``FOLDER/unlabeled_000500.png``; a file that cannot be written costs a warning.

    Patches are read at the first evaluation and kept. Training takes the same course with and
    without panels: no random number is drawn, and every mode is restored. In a distributed run
    only the first process draws.

    Args:
        model: the evaluated model; returns logits [N, B, C, H, W].
        classes: the class list.
        folder: where the PNG files go; it is made when needed.
        validation: patches with masks, or None for no such sheet.
        unlabeled: patches without masks, or None for no such sheet.
        labeler: the model that makes the pseudo-labels; ``model`` if not given.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class; a tensor
            may change during the run; None where there is no self-training.
        device: where the models are.
        precision: "fp32" or "bf16".

    Raises:
        ValueError: not one threshold per class.

    Example:
        >>> Evaluation(evaluator, scores, validation, training, every=500).attach(trainer)
        >>> panels = Panels(
        ...     ema.model, classes, folder / "panels", validation=data.panel_validation,
        ...     unlabeled=data.panel_unlabeled, labeler=model, thresholds=thresholds,
        ... )
        >>> panels.attach(trainer)
        >>> TensorBoardMonitor(folder / "tensorboard").attach(trainer)
    """

    def __init__(
        self,
        model: nn.Module,
        classes: ClassMap,
        folder: Path,
        *,
        validation: Gallery | None,
        unlabeled: Gallery | None = None,
        labeler: nn.Module | None = None,
        thresholds: Sequence[float] | Tensor | None = None,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        if thresholds is not None and len(thresholds) != classes.num_classes:
            raise ValueError(f"{len(thresholds)} thresholds for {classes.num_classes} classes")
        self.model = model
        self.classes = classes
        self.folder = folder
        self.galleries = {"validation": validation, "unlabeled": unlabeled}
        self.labeler = model if labeler is None or thresholds is None else labeler
        self.thresholds: Tensor | None = None
        if thresholds is not None:
            self.thresholds = torch.as_tensor(thresholds, dtype=torch.float32, device=device)
        self.device = device
        self.precision = precision
        self._read: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def attach(self, engine: Engine) -> None:
        """Draws on ``TrainingEvents.EVALUATED``; attach it before the monitors."""
        engine.add_event_handler(TrainingEvents.EVALUATED, self.draw)

    def draw(self, engine: Engine) -> None:
        """Draws, writes and publishes the sheets of the last evaluation."""
        if idist.get_rank() != 0:
            return
        result: EvaluationResult = engine.state.evaluation
        drawers = {"validation": self._draw_validation, "unlabeled": self._draw_unlabeled}
        for name, draw in drawers.items():
            items = self._items(name)
            if items:
                result.pictures[name] = draw(items, result.iteration)
                self._save(name, result.pictures[name], result.iteration)

    def _items(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        if name not in self._read:
            gallery = self.galleries[name]
            self._read[name] = [] if gallery is None else gallery.read()
        return self._read[name]

    def _draw_validation(
        self, items: list[tuple[str, dict[str, Any]]], iteration: int
    ) -> np.ndarray:
        rows = []
        for name, item in items:
            confidence, prediction = (part[0] for part in self._predict(self.model, item).max(1))
            truth, found = item["mask"].numpy(), prediction.cpu().numpy()
            tiles = validation_tiles(
                _pixels(item), truth, found, confidence.cpu().numpy(), self.classes
            )
            rows.append(Row(name, _correct_share(truth, found), tiles))
        title = f"Validation patches, iteration {iteration:,}"
        return validation_sheet(title, rows, self.classes)

    def _draw_unlabeled(
        self, items: list[tuple[str, dict[str, Any]]], iteration: int
    ) -> np.ndarray:
        rows = []
        for name, item in items:
            probabilities = self._predict(self.labeler, item)
            confidence, prediction = (part[0].cpu().numpy() for part in probabilities.max(1))
            kept, facts = None, ""
            if self.thresholds is not None:
                valid = content_mask(item["image"][None].to(self.device))
                pseudo = select_pseudo_labels(probabilities, self.thresholds, valid)
                kept = pseudo.labels[0].cpu().numpy()
                facts = f"{pseudo.kept.item() / max(1, pseudo.valid.item()):.1%} kept"
            tiles = unlabeled_tiles(_pixels(item), prediction, confidence, self.classes, kept)
            rows.append(Row(name, facts, tiles))
        title = f"Unlabelled patches, iteration {iteration:,}"
        return unlabeled_sheet(title, rows, self.classes)

    @torch.no_grad()
    def _predict(self, model: nn.Module, item: dict[str, Any]) -> Tensor:
        """Returns probabilities, float32 [1, C, H, W]."""
        with _in_evaluation_mode(model), autocast(self.device, self.precision):
            return predict_once(model, image_to_device(item["image"][None], self.device))

    def _save(self, name: str, picture: np.ndarray, iteration: int) -> None:
        path = self.folder / f"{name}_{iteration:06d}.png"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda file: Image.fromarray(picture).save(file, format="PNG"))
        except OSError as error:
            _LOGGER.warning("no panel: %s", error)


def _mostly_padding(item: dict[str, Any]) -> bool:
    return content_mask(item["image"][None]).float().mean().item() < 0.5


@contextmanager
def _in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Restores the mode of every module: some may be frozen while the others train."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _pixels(item: dict[str, Any]) -> np.ndarray:
    return item["image"].permute(1, 2, 0).numpy()


def _correct_share(truth: np.ndarray, prediction: np.ndarray) -> str:
    counted = truth != IGNORE_INDEX
    if not counted.any():
        return "no labelled pixel"
    return f"{np.mean(prediction[counted] == truth[counted]):.1%} correct"
