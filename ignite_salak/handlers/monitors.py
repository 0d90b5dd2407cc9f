"""Scalars for dashboards."""

from __future__ import annotations

import math
from pathlib import Path

from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import EvaluationResult

__all__ = ["TensorBoardMonitor"]


class TensorBoardMonitor:
    """Writes logged numbers under "train/" and scores under "validation/" and "training/".

    Args:
        folder: log folder, for ``tensorboard --logdir``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._logger: TensorboardLogger | None = None

    def attach(self, engine: Engine) -> None:
        """Writes on ``TrainingEvents.LOGGED`` and ``EVALUATED``, from start to end of the run."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(TrainingEvents.LOGGED, self._log)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._evaluate)
        engine.add_event_handler(Events.TERMINATE, self._close)
        engine.add_event_handler(Events.COMPLETED, self._close)

    def _open(self, engine: Engine) -> None:
        # A resumed run hides the events after the iteration it continues from.
        start = engine.state.iteration
        self._logger = TensorboardLogger(
            log_dir=str(self.folder), purge_step=start + 1 if start else None
        )

    def _log(self, engine: Engine) -> None:
        self._write("train", engine.state.metrics, engine.state.iteration)

    def _evaluate(self, engine: Engine) -> None:
        result: EvaluationResult = engine.state.evaluation
        self._write("validation", {**result.validation, "gap": result.gap}, result.iteration)
        self._write("training", result.training, result.iteration)

    def _write(self, group: str, values: dict[str, float], iteration: int) -> None:
        if self._logger is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self._logger.writer.add_scalar(f"{group}/{name}", value, iteration)

    def _close(self) -> None:
        if self._logger is not None:
            self._logger.close()
            self._logger = None
