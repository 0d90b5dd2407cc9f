"""Dashboards: one class per service, all on ignite's own loggers."""

from __future__ import annotations

import atexit
import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ignite.handlers import TensorboardLogger, WandBLogger
from ignite.handlers.clearml_logger import ClearMLLogger

from ignite_salak.handlers.evaluation import Best
from ignite_salak.handlers.monitor_base import Monitor

__all__ = ["ClearMLMonitor", "TensorBoardMonitor", "WandBMonitor"]

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
