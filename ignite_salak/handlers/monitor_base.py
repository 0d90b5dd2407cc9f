"""What every dashboard does: when it reports, and that it never stops or delays a training."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import Best, EvaluationResult

__all__ = ["Monitor"]

_LOGGER = logging.getLogger(__name__)


class Monitor(ABC):
    """Reports a run to a service, from rank 0.

    What was logged goes under "train/", scores under "validation/" and "training/", pictures under
    "pictures/"; values that are not finite are left out. The best score and its iteration are the
    summary of the run. The best model is handed over once, at the end of the run, also where the
    run is interrupted: uploading every new best would hold up the training again and again.

    A service that fails, or lets the run wait for longer than its limit, costs one warning, and
    then the rest of the run goes unreported; training never stops for it. Services are called in
    threads of their own, so that not even one that hangs or calls ``sys.exit`` ends the run.

    Attach it behind the handlers that make the evaluation's result: ``Evaluation``,
    ``BestModelSaver`` and ``Panels``.

    Args:
        options: options of the run, nested plain values.

    Attributes:
        limit: seconds that opening and every report may take.
        closing_limit: seconds that the end may take, with the upload of the model.

    Example:
        >>> monitor = TensorBoardMonitor(folder / "tensorboard", to_dict(options))
        >>> monitor.attach(trainer)
        >>> with closing(monitor):  # the end is reported even if the run raises
        ...     trainer.run(batches)
    """

    limit: float = 40.0
    closing_limit: float = 150.0

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self._logger: Any = None
        self._best: Best | None = None

    def attach(self, engine: Engine) -> None:
        """Reports from start to end of the run; does nothing where the rank is not 0."""
        if idist.get_rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(TrainingEvents.LOGGED, self._log)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._evaluate)
        engine.add_event_handler(Events.TERMINATE, self.close)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def close(self) -> None:
        """Hands the best model over and ends the reports; a second call does nothing."""
        logger, self._logger = self._logger, None
        if logger is not None:
            self._guarded(lambda: self._finish(logger), self.closing_limit)

    @abstractmethod
    def open(self, iteration: int) -> Any:
        """Returns ignite's logger of the service, for a run that continues from ``iteration``."""

    @abstractmethod
    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Sends finite values by name."""

    @abstractmethod
    def write_pictures(self, logger: Any, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Sends pictures, uint8 [H, W, 3], by name."""

    @abstractmethod
    def write_best(self, logger: Any, best: Best, iteration: int) -> None:
        """Notes the best score so far and its iteration as the summary of the run."""

    def save_model(self, logger: Any, best: Best) -> None:  # noqa: B027
        """Hands the file of the best model over, where the service keeps files."""

    def abandon(self) -> None:  # noqa: B027
        """Sees to it that a service that failed does not hold up the end of the process."""

    def _start(self, engine: Engine) -> None:
        def start() -> None:
            logger = self.open(engine.state.iteration)
            if abandoned.is_set():
                logger.close()
            else:
                self._logger = logger

        abandoned = threading.Event()
        self._best = None
        if not self._guarded(start, self.limit):
            abandoned.set()

    def _log(self, engine: Engine) -> None:
        self._send({"train": engine.state.metrics}, engine.state.iteration)

    def _evaluate(self, engine: Engine) -> None:
        result: EvaluationResult = engine.state.evaluation
        validation = {**result.validation, "gap": result.gap}
        self._send({"validation": validation, "training": result.training}, result.iteration)
        if result.pictures:
            pictures = {f"pictures/{name}": picture for name, picture in result.pictures.items()}
            self._report(lambda logger: self.write_pictures(logger, pictures, result.iteration))
        if result.best is not None and math.isfinite(result.best.score):
            self._note(result.best, result.iteration)

    def _note(self, best: Best, iteration: int) -> None:
        known, self._best = self._best, best
        if known is None or known.iteration != best.iteration:
            self._report(lambda logger: self.write_best(logger, best, iteration))

    def _send(self, groups: dict[str, dict[str, float]], iteration: int) -> None:
        values = {
            f"{group}/{name}": value
            for group, named in groups.items()
            for name, value in named.items()
            if math.isfinite(value)
        }
        self._report(lambda logger: self.write(logger, values, iteration))

    def _report(self, action: Callable[[Any], None]) -> None:
        logger = self._logger
        if logger is not None and not self._guarded(lambda: action(logger), self.limit):
            self._logger = None
            # What was reported so far is kept, and the next run does not find this one still open.
            with contextlib.suppress(Exception):
                _within(self.limit, logger.close)

    def _finish(self, logger: Any) -> None:
        try:
            if self._best is not None and self._best.path.is_file():
                self.save_model(logger, self._best)
        finally:
            logger.close()

    def _guarded(self, action: Callable[[], None], limit: float) -> bool:
        try:
            _within(limit, action)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            _LOGGER.warning("%s reports no more: %s", type(self).__name__, reason)
            with contextlib.suppress(Exception):
                _within(self.limit, self.abandon)
            return False
        return True


def _within(limit: float, action: Callable[[], None]) -> None:
    """Calls ``action`` in a thread.

    Raises:
        TimeoutError: it is not done after ``limit`` seconds; the thread is left to itself.
        RuntimeError: it wanted to end the process.
        Exception: whatever it raises.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    # A daemon: the end of the process does not wait for a service that hangs.
    thread = threading.Thread(target=run, name="monitor", daemon=True)
    thread.start()
    thread.join(limit)
    if errors:
        if isinstance(errors[0], Exception):
            raise errors[0]
        raise RuntimeError(f"{type(errors[0]).__name__} {errors[0]}") from errors[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer within {limit:g} seconds")
