"""Scalars for dashboards: one class per service, all on ignite's own loggers."""

from __future__ import annotations

import logging
import math
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger, WandBLogger

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import EvaluationResult

__all__ = ["ScalarMonitor", "TensorBoardMonitor", "WandBMonitor"]

_LOGGER = logging.getLogger(__name__)


class ScalarMonitor(ABC):
    """Reports logged numbers under "train/" and scores under "validation/" and "training/".

    Services are subclasses. One that fails costs a warning, and then the rest of the run goes
    unreported; training never stops for it.

    Attributes:
        failures: exceptions by which the service fails.
    """

    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self) -> None:
        self._logger: Any = None

    def attach(self, engine: Engine) -> None:
        """Reports on ``TrainingEvents.LOGGED`` and ``EVALUATED``, from start to end of the run."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(TrainingEvents.LOGGED, self._log)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._evaluate)
        engine.add_event_handler(Events.TERMINATE, self._end)
        engine.add_event_handler(Events.COMPLETED, self._end)

    @abstractmethod
    def open(self, iteration: int) -> Any:
        """Returns ignite's logger of the service, for a run that continues from ``iteration``."""

    @abstractmethod
    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Sends finite values by name."""

    def _start(self, engine: Engine) -> None:
        self._guarded(lambda: setattr(self, "_logger", self.open(engine.state.iteration)))

    def _log(self, engine: Engine) -> None:
        self._send({"train": engine.state.metrics}, engine.state.iteration)

    def _evaluate(self, engine: Engine) -> None:
        result: EvaluationResult = engine.state.evaluation
        validation = {**result.validation, "gap": result.gap}
        self._send({"validation": validation, "training": result.training}, result.iteration)

    def _send(self, groups: dict[str, dict[str, float]], iteration: int) -> None:
        values = {
            f"{group}/{name}": value
            for group, named in groups.items()
            for name, value in named.items()
            if math.isfinite(value)
        }
        if self._logger is not None:
            self._guarded(lambda: self.write(self._logger, values, iteration))

    def _end(self) -> None:
        if self._logger is not None:
            self._guarded(self._logger.close)
            self._logger = None

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except self.failures as error:
            self._logger = None
            reason = (str(error).splitlines() or [""])[0]
            _LOGGER.warning("%s reports no more: %s", type(self).__name__, reason)


class TensorBoardMonitor(ScalarMonitor):
    """Writes event files for ``tensorboard --logdir``.

    Args:
        folder: log folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def open(self, iteration: int) -> TensorboardLogger:
        """Opens an event file that hides what an earlier run wrote after ``iteration``."""
        purge_step = iteration + 1 if iteration else None
        return TensorboardLogger(log_dir=str(self.folder), purge_step=purge_step)

    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Adds one scalar per value."""
        for name, value in values.items():
            logger.writer.add_scalar(name, value, iteration)


class WandBMonitor(ScalarMonitor):
    """Reports to Weights & Biases; WANDB_MODE=offline keeps everything on this machine.

    Args:
        project: name of the project.
        config: options of the run, plain values.
        folder: where wandb keeps its files.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """

    def __init__(self, project: str, config: dict[str, Any], folder: Path) -> None:
        super().__init__()
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                '--wandb-project needs wandb: pip install "ignite-salak[wandb]"'
            ) from error
        self.failures = (OSError, RuntimeError, wandb.Error)
        self.project = project
        self.config = config
        self.folder = folder

    def open(self, iteration: int) -> WandBLogger:
        """Starts a run, without ever asking for a key.

        Raises:
            RuntimeError: neither a key nor offline mode.
        """
        import wandb

        offline = os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and wandb.api.api_key is None:
            raise RuntimeError(
                "no key for Weights & Biases: run 'wandb login' or WANDB_MODE=offline"
            )
        return WandBLogger(project=self.project, config=self.config, dir=str(self.folder))

    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Logs the values of one iteration."""
        logger.log(values, step=iteration)
