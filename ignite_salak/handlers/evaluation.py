"""Evaluation of the averaged model during training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ignite.engine import Engine, Events

from ignite_salak.events import TrainingEvents

__all__ = ["Evaluation", "EvaluationResult"]


@dataclass
class EvaluationResult:
    """Scores of one evaluation.

    Attributes:
        iteration: when it was.
        validation: scores on the validation patches, see ``metrics.scores_from_confusion``.
        training: the same on a sample of the training patches.
        best: what the best-model saver said, one string a line.
    """

    iteration: int
    validation: dict[str, float]
    training: dict[str, float]
    best: tuple[str, ...] = ()

    @property
    def gap(self) -> float:
        """Training mIoU minus validation mIoU."""
        return self.training["mIoU"] - self.validation["mIoU"]


class Evaluation:
    """Evaluates every N iterations and after the last, and fires ``TrainingEvents.EVALUATED``.

    Args:
        evaluator: engine whose metric "scores" is a ``ClassIoU``.
        validation: re-iterable batches of all validation patches.
        training: re-iterable batches of a fixed sample of training patches, of the same size.
        every: iterations between two evaluations.

    Attributes:
        last: the latest result, also ``engine.state.evaluation``; None before the first.

    Raises:
        ValueError: ``every`` is not positive.

    Example:
        >>> Evaluation(evaluator, validation_batches, training_batches, every=500).attach(trainer)
    """

    def __init__(
        self, evaluator: Engine, validation: Iterable, training: Iterable, *, every: int
    ) -> None:
        if every < 1:
            raise ValueError(f"--eval-every {every} is not at least 1")
        self.evaluator = evaluator
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
        self.last = EvaluationResult(
            iteration, self._scores(self.validation), self._scores(self.training)
        )
        engine.state.evaluation = self.last
        engine.fire_event(TrainingEvents.EVALUATED)

    def _scores(self, batches: Iterable) -> dict[str, float]:
        return dict(self.evaluator.run(batches).metrics["scores"])
