"""What the model sees on unlabelled source images, and which of them it comes to see otherwise."""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from ignite_salak.events import TrainingEvents
from ignite_salak.files import write_table
from ignite_salak.handlers.evaluation import EvaluationResult, SourceChange
from ignite_salak.pseudo_labels import content_mask
from ignite_salak.ranks import is_first, sum_over_ranks
from ignite_salak.steps.device import autocast, image_to_device
from ignite_salak.voting import predict_once

__all__ = ["SourceWatch"]

_LOGGER = logging.getLogger(__name__)
_DIGITS = 6  # of the file, so that a resumed run compares with the same numbers


class SourceWatch:
    """Counts the classes of unlabelled source images at every evaluation; no mask is needed.

    Self-training can turn most of a source image, such as a photo of dark water, into another class
    and teach the student so, while the score on the validation images stays as it is. What can be
    seen without a mask is that the image's classes are no longer those that the model saw at some
    earlier evaluation. That is a reason to look at it, no proof: it may have been wrong before.

    Sets ``result.changes``, the largest first, and writes a CSV of "iteration", "source",
    "share/..." of every class, "changed" and "since", see ``SourceChange``. A resumed run compares
    with the evaluations in that file. A file that a spreadsheet holds open on Windows is written
    the next time. Training takes the same course with and without: no random number is drawn.

    Args:
        model: the evaluated model, left in evaluation mode; returns logits [N, B, C, H, W] for RGB
            images [B, 3, H, W] in 0-1.
        batches: re-iterable, ``{"image": uint8 [B, 3, H, W], "source": int64 [B]}``, the same
            patches every time.
        sources: names of the source images, by the numbers in "source"; those without a patch are
            left out.
        names: class names, in the order of the logits.
        path: the CSV file.
        device: where the model is.
        precision: "fp32" or "bf16".

    Attributes:
        rows: one mapping per evaluation and source image, as in the file.

    Example:
        >>> Evaluation(evaluator, scores, validation, training, every=500).attach(trainer)
        >>> watched = EvaluationBatches(PatchDataset(index, some_patches), batch_size=8)
        >>> sources = [index.source_name(source) for source in range(len(index.sources))]
        >>> path = folder / "source_classes.csv"
        >>> SourceWatch(ema.model, watched, sources, classes.names, path).attach(trainer)
        >>> Health(classes.names).attach(trainer)
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[dict[str, Any]],
        sources: Sequence[str],
        names: Sequence[str],
        path: Path,
        *,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.model = model
        self.batches = batches
        self.sources = tuple(sources)
        self.names = tuple(names)
        self.path = path
        self.device = device
        self.precision = precision
        self.rows: list[dict[str, Any]] = []
        self._shares = tuple(f"share/{name}" for name in names)
        self._earlier: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Reads earlier rows when the run starts, and counts at every evaluation.

        Attach it behind ``Evaluation`` and before ``Health``.
        """
        engine.add_event_handler(Events.STARTED, self._continue)
        engine.add_event_handler(TrainingEvents.EVALUATED, self.look)

    def look(self, engine: Engine) -> None:
        """Counts the classes of every source image, sets ``result.changes`` and writes the file."""
        result: EvaluationResult = engine.state.evaluation
        changes = []
        counts = self._count()
        for source in np.flatnonzero(counts.sum(axis=1)):
            name = self.sources[source]
            shares = np.round(counts[source] / counts[source].sum(), _DIGITS)
            change = self._compare(name, result.iteration, shares)
            self._earlier[name].append((result.iteration, shares))
            values = [f"{value:.{_DIGITS}f}" for value in (*shares, change.share)]
            seen = dict(zip((*self._shares, "changed"), values, strict=True))
            place = {"iteration": result.iteration, "source": name}
            self.rows.append({**place, **seen, "since": change.since})
            changes.append(change)
        result.changes = sorted(changes, key=lambda change: change.share, reverse=True)
        if is_first():
            write_table(self.path, self.rows)

    def _compare(self, name: str, iteration: int, shares: np.ndarray) -> SourceChange:
        """Compares with the earlier evaluation that differs most."""
        since, gains = iteration, np.zeros(len(shares))
        for reached, earlier in self._earlier[name]:
            if np.abs(shares - earlier).sum() > np.abs(gains).sum():
                since, gains = reached, shares - earlier
        return SourceChange(
            source=name,
            share=float(np.abs(gains).sum() / 2),
            lost=self.names[gains.argmin()],
            gained=self.names[gains.argmax()],
            since=since,
        )

    @torch.no_grad()
    def _count(self) -> np.ndarray:
        """Returns pixels with content by source image and class, int64 [N, C]."""
        classes = len(self.names)
        counts = torch.zeros(len(self.sources) * classes, dtype=torch.long, device=self.device)
        self.model.eval()
        for batch in self.batches:
            images = image_to_device(batch["image"], self.device)
            with autocast(self.device, self.precision):
                label = predict_once(self.model, images).argmax(dim=1)
            place = batch["source"].to(self.device)[:, None, None] * classes + label
            counts += torch.bincount(place[content_mask(images)], minlength=len(counts))
        return sum_over_ranks(counts).reshape(-1, classes).cpu().numpy()

    def _continue(self, engine: Engine) -> None:
        self.rows.clear()
        self._earlier.clear()
        if not engine.state.iteration or not self.path.is_file():
            return
        try:
            self._take_over(engine.state.iteration)
        except (ValueError, KeyError, TypeError) as error:
            _LOGGER.warning("%s is damaged (%s): it is begun anew", self.path, error)
            self.rows.clear()
            self._earlier.clear()

    def _take_over(self, iteration: int) -> None:
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                reached, shares = int(row["iteration"]), [float(row[name]) for name in self._shares]
                if reached > iteration:
                    break
                self.rows.append(row)
                self._earlier[row["source"]].append((reached, np.array(shares)))
