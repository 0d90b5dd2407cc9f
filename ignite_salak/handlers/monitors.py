"""Dashboards: one class per service, all on ignite's own loggers."""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from ignite.handlers import TensorboardLogger, WandBLogger
from ignite.handlers.clearml_logger import ClearMLLogger

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import Best, EvaluationResult

__all__ = ["ClearMLMonitor", "Monitor", "TensorBoardMonitor", "WandBMonitor"]

_LOGGER = logging.getLogger(__name__)

# What clearml hooks into unless told otherwise, by its names. False for all of them at once would
# leave "detect_repository" on: that runs git in a thread, which hangs where a worker is forked
# meanwhile, and stores the source of the script.
_HOOKS = (
    "catboost",
    "detect_repository",
    "fastai",
    "gradio",
    "hydra",
    "joblib",
    "jsonargparse",
    "lightgbm",
    "matplotlib",
    "megengine",
    "pytorch",
    "scikit",
    "tensorboard",
    "tensorflow",
    "tfdefines",
    "xgboost",
)


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


class TensorBoardMonitor(Monitor):
    """Writes event files for ``tensorboard --logdir``; they hold no model.

    A resumed run adds an event file that hides what came after the iteration it continues from.

    Args:
        folder: log folder.
        options: options of the run, nested plain values, shown as text "options".
    """

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        super().__init__(options)
        self.folder = folder

    def open(self, iteration: int) -> TensorboardLogger:
        """Opens an event file and writes the options."""
        purge_step = iteration + 1 if iteration else None
        logger = TensorboardLogger(log_dir=str(self.folder), purge_step=purge_step)
        logger.writer.add_text("options", _markdown_table(self.options), iteration)
        return logger

    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Adds one scalar per value."""
        for name, value in values.items():
            logger.writer.add_scalar(name, value, iteration)

    def write_pictures(self, logger: Any, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Adds one image per picture."""
        for name, picture in pictures.items():
            logger.writer.add_image(name, picture, iteration, dataformats="HWC")

    def write_best(self, logger: Any, best: Best, iteration: int) -> None:
        """Adds the scalars "best/mIoU" and "best/iteration"."""
        logger.writer.add_scalar("best/mIoU", best.score, iteration)
        logger.writer.add_scalar("best/iteration", best.iteration, iteration)


class ClearMLMonitor(Monitor):
    """Reports to ClearML, as a new task; a resumed run is a new task that begins where it resumes.

    A metric of several groups is one plot with a series per group, and a metric per class or per
    parameter group is a plot of its own. Without ``offline`` the best model is an output model;
    offline, where clearml cannot keep one, it is the artifact "best_model". Nothing is hooked:
    neither frameworks, arguments and streams, nor the source of the script and its repository.

    Offline is a state of the whole process in clearml. It stays until another monitor opens
    without ``offline``, because leaving it makes clearml log in to its server. The session is a
    .zip below CLEARML_CACHE_DIR, by default ~/.clearml; ``Task.import_offline_session`` reads it.

    Args:
        project: name of the project.
        name: name of the task.
        options: options of the run, nested plain values, shown as configuration "options".
        offline: keep everything on this machine.
    """

    _switched = False

    def __init__(
        self, project: str, name: str, options: dict[str, Any], *, offline: bool = False
    ) -> None:
        super().__init__(options)
        self.project = project
        self.name = name
        self.offline = offline

    def open(self, iteration: int) -> ClearMLLogger:
        """Starts a task.

        Raises:
            ValueError: neither credentials nor offline mode.
        """
        from clearml.backend_api.session.defs import MissingConfigError

        try:
            self._switch()
            logger = self._new_task()
        except MissingConfigError as error:
            raise ValueError(
                "no credentials for ClearML: run 'clearml-init' or use --clearml-offline"
            ) from error
        logger.get_task().connect(copy.deepcopy(self.options), name="options")
        return logger

    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Reports one point per value."""
        for name, value in values.items():
            title, series = _title_and_series(name)
            logger.report_scalar(title, series, value, iteration)

    def write_pictures(self, logger: Any, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Reports one debug sample per picture."""
        for name, picture in pictures.items():
            title, _, series = name.partition("/")
            logger.report_image(title, series, iteration, image=picture)

    def write_best(self, logger: Any, best: Best, iteration: int) -> None:
        """Reports the single values "best mIoU" and "best iteration"."""
        logger.report_single_value("best mIoU", best.score)
        logger.report_single_value("best iteration", best.iteration)

    def save_model(self, logger: Any, best: Best) -> None:
        """Uploads the output model, or copies the artifact into the offline session."""
        from clearml import OutputModel, Task

        task = logger.get_task()
        if Task.is_offline():
            facts = {"mIoU": best.score, "iteration": best.iteration}
            task.upload_artifact("best_model", best.path, metadata=facts, wait_on_upload=True)
        else:
            model = OutputModel(task=task, name=best.path.stem, framework="PyTorch")
            model.update_weights(
                str(best.path),
                auto_delete_file=False,
                iteration=best.iteration,
                async_enable=False,
            )

    def abandon(self) -> None:
        """Takes back what clearml wants to do at exit, where it would wait for the server."""
        from clearml import Task

        task: Any = Task.current_task()
        if task is not None:
            atexit.unregister(task._at_exit)
            atexit.unregister(task._reporter._handle_program_exit)
            handler = task._logger._task_handler
            if handler is not None:
                handler._task_id = None  # then its close, at exit, does nothing

    def _switch(self) -> None:
        from clearml import Task

        if self.offline:
            ClearMLMonitor._switched |= not Task.is_offline()
            Task.set_offline(True)
        elif ClearMLMonitor._switched:
            ClearMLMonitor._switched = False
            Task.set_offline(False)

    def _new_task(self) -> ClearMLLogger:
        from clearml import Task

        Task.set_random_seed(None)  # clearml would seed torch, numpy and random anew
        # Its process for reports is a fork of this one, which threads and CUDA do not survive.
        setattr(Task, "_report_subprocess_enabled", False)  # noqa: B010 (its type is private)
        return ClearMLLogger(
            project_name=self.project,
            task_name=self.name,
            reuse_last_task_id=False,
            output_uri=None if Task.is_offline() else True,
            auto_connect_frameworks=dict.fromkeys(_HOOKS, False),
            auto_connect_arg_parser=False,
            auto_connect_streams=False,
            auto_resource_monitoring=False,
        )


class WandBMonitor(Monitor):
    """Reports to Weights & Biases, as a new run; one that was resumed begins where it resumes.

    The step is the iteration. The best model is an artifact of type "model", alias "best".

    Args:
        project: name of the project.
        name: name of the run.
        options: options of the run, nested plain values, shown as config.
        folder: where wandb keeps its files.
        mode: "online", "offline" (``wandb sync`` uploads it later) or "disabled"; if None,
            WANDB_MODE or wandb's own settings say.

    Raises:
        ModuleNotFoundError: wandb is not installed.
    """

    def __init__(
        self,
        project: str,
        name: str,
        options: dict[str, Any],
        folder: Path,
        *,
        mode: str | None = None,
    ) -> None:
        super().__init__(options)
        try:
            import wandb  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                '--wandb-project needs wandb: pip install "ignite-salak[wandb]"'
            ) from error
        self.project = project
        self.name = name
        self.folder = folder
        self.mode = mode

    def open(self, iteration: int) -> WandBLogger:
        """Starts a run, without ever asking for a key.

        Raises:
            ValueError: neither a key nor offline mode.
        """
        import wandb

        mode = self.mode or os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        if mode not in ("offline", "disabled", "dryrun") and not wandb.login(prompt=False):
            raise ValueError(
                "no key for Weights & Biases: run 'wandb login' or use --wandb-mode offline"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            quiet=True,
            console="off",
            # Below our own limits, so that wandb still says why.
            init_timeout=self.limit / 2,
            finish_timeout=self.closing_limit * 0.8,
        )
        return WandBLogger(
            project=self.project,
            name=self.name,
            config=self.options,
            dir=str(self.folder),
            mode=mode,
            settings=settings,
        )

    def write(self, logger: Any, values: dict[str, float], iteration: int) -> None:
        """Logs the values of one iteration."""
        logger.log(values, step=iteration)

    def write_pictures(self, logger: Any, pictures: dict[str, np.ndarray], iteration: int) -> None:
        """Logs one image per picture."""
        import wandb

        images = {name: wandb.Image(picture) for name, picture in pictures.items()}
        logger.log(images, step=iteration)

    def write_best(self, logger: Any, best: Best, iteration: int) -> None:
        """Sets "best/mIoU" and "best/iteration" in the summary."""
        logger.run.summary.update({"best/mIoU": best.score, "best/iteration": best.iteration})

    def save_model(self, logger: Any, best: Best) -> None:
        """Logs the artifact."""
        import wandb

        facts = {"mIoU": best.score, "iteration": best.iteration}
        artifact = wandb.Artifact(f"best-model-{logger.run.id}", type="model", metadata=facts)
        artifact.add_file(str(best.path))
        logger.run.log_artifact(artifact, aliases=["best"])


def _title_and_series(name: str) -> tuple[str, str]:
    """Returns where "validation/IoU/road" or "validation/mIoU" belongs: plot, and line in it."""
    group, _, metric = name.partition("/")
    kind, _, detail = metric.partition("/")
    return (f"{group}/{kind}", detail) if detail else (kind, group)


def _flat(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _markdown_table(options: dict[str, Any]) -> str:
    rows = [f"| {name} | `{value}` |" for name, value in _flat(options)]
    return "\n".join(["| option | value |", "| --- | --- |", *rows])
