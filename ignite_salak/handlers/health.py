"""The guide's bad signs, as warnings that say what to do."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence

from ignite.engine import Engine

from ignite_salak.classes import BACKGROUND
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import EvaluationResult, SourceChange

__all__ = ["Health"]

_LOGGER = logging.getLogger(__name__)
_SOURCES = 5  # of a run; source_classes.csv has all


class Health:
    """Warns of a run that goes wrong, each sign once.

    Signs of the V3 guide: ST_px under 1,000 after 2,000 iterations; cross-entropy above 1 or Dice
    loss above 0.5 after 10,000; a train/validation gap above 0.10; a class whose IoU is 0. And two
    that the guide lacks: a validation mIoU 0.05 under the best, as when self-training teaches the
    student its own errors, and an unlabelled source image of which more than 40 %, and twice as
    much as of most others, had another class at an earlier evaluation, see ``SourceWatch``; where
    all of them change, the model has just learnt more.

    Args:
        names: class names, the background first.
        self_training: whether ST_px is to be watched.
        st_advice: what to do about few ST_px, and about a class that is never found; "" where there
            is nothing to do.
        st_from: iteration from which few ST_px are a bad sign.
        losses_from: iteration from which high losses are a bad sign.
        gap_from: iteration from which the gap and the single classes are judged.

    Attributes:
        warnings: all warnings so far, for reports.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        self_training: bool = True,
        st_advice: str = "",
        st_from: int = 2000,
        losses_from: int = 10000,
        gap_from: int = 2000,
    ) -> None:
        self.names = tuple(names)
        self.self_training = self_training
        self.st_advice = st_advice
        self.st_from = st_from
        self.losses_from = losses_from
        self.gap_from = gap_from
        self.warnings: dict[str, str] = {}
        self._best = -math.inf
        self._changed: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Looks whenever numbers are logged and after every evaluation."""
        engine.add_event_handler(TrainingEvents.LOGGED, self.check_training)
        engine.add_event_handler(TrainingEvents.EVALUATED, self.check_evaluation)

    def check_training(self, engine: Engine) -> None:
        """Judges ``engine.state.metrics``.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        values, iteration = engine.state.metrics, engine.state.iteration
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"the loss is {values['loss']} at iteration {iteration}; lower --learning-rate or "
                "--gradient-clip, and continue from the last checkpoint_<iteration>.pth"
            )
        if self.self_training and iteration >= self.st_from and values["st_px"] < 1000:
            advice = f": {self.st_advice}" if self.st_advice else ""
            self._warn("st_px", f"ST_px is {values['st_px']:.0f}, under 1,000{advice}")
        if iteration >= self.losses_from and values.get("ce", 0.0) > 1.0:
            self._warn("ce", f"CE is {values['ce']:.2f}, above 1: the model is not learning")
        if iteration >= self.losses_from and values.get("dice", 0.0) > 0.5:
            self._warn("dice", f"Dice is {values['dice']:.2f}, above 0.5: poor segmentation")

    def check_evaluation(self, engine: Engine) -> None:
        """Judges ``engine.state.evaluation``."""
        result: EvaluationResult = engine.state.evaluation
        score = result.validation["mIoU"]
        self._best = max(self._best, score)
        if score < self._best - 0.05:
            cause = ""
            if self.self_training:
                cause = ": compare with --st-loss-weight 0 before you trust self-training"
            self._warn("fall", f"validation mIoU fell from {self._best:.2f} to {score:.2f}{cause}")
        self._check_sources(result.changes)
        if result.iteration < self.gap_from:
            return
        if result.gap > 0.10:
            self._warn(
                "gap",
                f"train/val gap {result.gap:.2f} is above 0.10 (overfitting): label more source "
                "images, or vary the scale more (--random-scale-range, or --scale-max with "
                "--multi-scale)",
            )
        advice = f", or {self.st_advice}" if self.self_training and self.st_advice else ""
        for index, name in enumerate(self.names):
            if index != BACKGROUND and result.validation[f"IoU/{name}"] == 0.0:
                self._warn(f"class {index}", f"class {name!r} has IoU 0: check its labels{advice}")

    def _check_sources(self, changes: Sequence[SourceChange]) -> None:
        usual = statistics.median(change.share for change in changes) if changes else 0.0
        for change in changes:
            if change.share <= max(0.4, 2.0 * usual) or len(self._changed) == _SOURCES:
                return
            self._changed.add(change.source)
            self._warn(
                f"source {change.source}",
                f"{change.share:.0%} of {change.source} is seen as another class than at iteration "
                f"{change.since:,}, {change.gained} instead of {change.lost}: look at its map "
                "before you trust it",
            )

    def _warn(self, sign: str, message: str) -> None:
        if sign not in self.warnings:
            self.warnings[sign] = message
            _LOGGER.warning("health: %s", message)
