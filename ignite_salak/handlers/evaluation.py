"""Evaluation of the averaged model during training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from ignite_salak.events import TrainingEvents
from ignite_salak.metrics import ClassIoU

__all__ = ["Best", "Evaluation", "EvaluationResult", "SourceChange", "validation_score"]


@dataclass(frozen=True)
class Best:
    """The best evaluation so far.

    Attributes:
        score: its validation mIoU; minus infinity while there is none.
        iteration: when it was.
        path: the file of its model.
        previous: the best score before, where this evaluation is the best; otherwise None.
    """

    score: float
    iteration: int
    path: Path
    previous: float | None

    @property
    def is_new(self) -> bool:
        """Whether this evaluation is the best, and its model was saved just now."""
        return self.previous is not None


@dataclass(frozen=True)
class SourceChange:
    """How a model sees a source image, compared with the evaluation that differs most.

    Attributes:
        source: name of the source image.
        share: half the sum of the differences of its class shares (total variation), 0 to 1: at
            least this part of its pixels had another class then.
        lost: the class that lost most.
        gained: the class that gained most.
        since: iteration of that evaluation; the present one where none differs.
    """

    source: str
    share: float
    lost: str
    gained: str
    since: int


@dataclass
class EvaluationResult:
    """What one evaluation found; handlers that are attached behind it add to it.

    Attributes:
        iteration: when it was.
        validation: scores on the validation patches, see ``metrics.scores_from_confusion``.
        training: the same on a sample of the training patches.
        confusion: pixel counts on the validation patches, int64 [C, C], rows are the truth.
        best: the best so far, set by ``BestModelSaver``.
        pictures: by name, uint8 [H, W, 3], set by ``Panels``.
        changes: how unlabelled source images came to be seen otherwise, set by ``SourceWatch``.
    """

    iteration: int
    validation: dict[str, float]
    training: dict[str, float]
    confusion: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    best: Best | None = None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    changes: list[SourceChange] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """Training mIoU minus validation mIoU."""
        return self.training["mIoU"] - self.validation["mIoU"]


class Evaluation:
    """Evaluates every N iterations and after the last, and fires ``TrainingEvents.EVALUATED``.

    Args:
        evaluator: engine that updates ``scores``.
        scores: the metric.
        validation: re-iterable batches of all validation patches.
        training: re-iterable batches of a fixed sample of training patches, of the same size.
        every: iterations between two evaluations.

    Attributes:
        last: the latest result, also ``engine.state.evaluation``; None before the first.

    Raises:
        ValueError: ``every`` is not positive.

    Example:
        >>> Evaluation(evaluator, scores, validation, training, every=500).attach(trainer)
    """

    def __init__(
        self,
        evaluator: Engine,
        scores: ClassIoU,
        validation: Iterable,
        training: Iterable,
        *,
        every: int,
    ) -> None:
        if every < 1:
            raise ValueError(f"--eval-every {every} is not at least 1")
        self.evaluator = evaluator
        self.scores = scores
        self.validation = validation
        self.training = training
        self.every = every
        self.last: EvaluationResult | None = None

    def attach(self, engine: Engine) -> None:
        """Evaluates after an iteration where it is time."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.maybe_evaluate)

    def maybe_evaluate(self, engine: Engine) -> None:
        """Evaluates if the current iteration is a multiple of ``every`` or the last."""
        iteration = engine.state.iteration
        if iteration % self.every and iteration != engine.state.epoch_length:
            return
        engine.fire_event(TrainingEvents.EVALUATION_STARTED)
        validation, confusion = self._judge(self.validation)
        training, _ = self._judge(self.training)
        self.last = EvaluationResult(iteration, validation, training, confusion)
        engine.state.evaluation = self.last
        engine.fire_event(TrainingEvents.EVALUATED)

    def _judge(self, batches: Iterable) -> tuple[dict[str, float], Tensor]:
        self.evaluator.run(batches)
        return self.scores.result, self.scores.total


def validation_score(engine: Engine) -> float:
    """Returns the validation mIoU of the last evaluation, minus infinity for NaN.

    It is the score function for ignite's ``EarlyStopping``, to which NaN would be an improvement.
    """
    score = engine.state.evaluation.validation["mIoU"]
    return -math.inf if math.isnan(score) else score
