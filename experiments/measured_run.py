"""V3 as ``train_v3`` composes it, under a timer: what the benchmark measures."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from experiments.measurements import seconds_of, spread, whole
from experiments.options import ScheduleOptions
from experiments.peak_memory import PeakMemory
from ignite_salak.data.device_batches import DeviceBatches
from ignite_salak.data.loaders import EvaluationBatches, TrainingStream
from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.files import write_whole
from ignite_salak.handlers import (
    EMAUpdater,
    GradientClipper,
    Health,
    History,
    PhaseTimer,
    ProgressBar,
    STPixelCounter,
    TensorBoardMonitor,
    TrainingLog,
    WarmupCosine,
)
from ignite_salak.losses import CombinedLoss
from ignite_salak.metrics import ClassIoU
from ignite_salak.models.compiling import compile_network
from ignite_salak.models.deeplabv3plus import DeepLabV3Plus
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views

__all__ = ["MeasuredRun"]


class MeasuredRun:
    """The library's way to train and to evaluate; every training starts at iteration 1.

    Args:
        model: on the CPU or the device.
        loss: for labelled patches.
        self_training_loss: for pseudo-labels.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class.
        views: the random views; their seed is that of the run.
        schedule: learning rate, clipping, averaging.
        names: class names.
        folder: for what handlers write; it must exist.
        device: where to compute.
        precision: "fp32" or "bf16".
        compiled: compile the network.
    """

    def __init__(
        self,
        model: DeepLabV3Plus,
        loss: CombinedLoss,
        self_training_loss: CombinedLoss,
        *,
        thresholds: list[float],
        views: Views,
        schedule: ScheduleOptions,
        names: tuple[str, ...],
        folder: Path,
        device: torch.device,
        precision: str,
        compiled: bool = False,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last)
        rates = schedule.learning_rate, schedule.decoder_lr_factor
        self.optimizer = schedule.build_optimizer(model.parameter_groups(*rates))
        self.rates = WarmupCosine(
            self.optimizer, warmup=schedule.warmup_iters, total=schedule.num_steps
        )
        self.ema = EMAUpdater(model, schedule.ema_decay)
        if compiled:
            for network in (model, self.ema.model):
                compile_network(network)
        self.loss, self.self_training_loss = loss, self_training_loss
        self.thresholds, self.views, self.schedule = thresholds, views, schedule
        self.names, self.folder = names, folder
        self.device, self.precision = device, precision
        self.scores = ClassIoU(names, device)
        metrics = {"scores": self.scores}
        self.evaluator = create_evaluator(
            self.ema.model, metrics, device=device, precision=precision
        )

    def step(self, views: Views) -> SelfTrainingStep:
        """Returns V3's step, with self-training from the first iteration on."""
        return SelfTrainingStep(
            self.model,
            self.optimizer,
            self.loss,
            self.self_training_loss,
            thresholds=self.thresholds,
            views=views,
            start_iteration=1,
            accumulation=self.schedule.grad_accumulation,
            device=self.device,
            precision=self.precision,
        )

    def train(self, stream: TrainingStream, steps: int) -> list[dict[str, float]]:
        """Trains from the first batch on, with all handlers that run in every iteration.

        They log every 50 iterations, as a run does, and at the end.

        Returns:
            The seconds of every phase of every iteration, see ``PhaseTimer``.
        """
        trainer = create_trainer(self.step(self.views), seed=self.views.seed)
        timer = PhaseTimer(self.device)
        timer.attach_first(trainer)
        self.rates.attach(trainer)
        GradientClipper(self.model, self.schedule.gradient_clip).attach(trainer)
        self.ema.attach(trainer)
        STPixelCounter(self.names, self.device).attach(trainer)
        TrainingLog(50, self.device).attach(trainer)
        progress = ProgressBar("ours")
        progress.attach(trainer)
        History(self.folder / "history.csv").attach(trainer)
        Health(self.names).attach(trainer)
        monitor = TensorBoardMonitor(self.folder / "tensorboard", {})
        monitor.attach(trainer)
        timer.attach_last(trainer)
        with closing(monitor), closing(progress):
            trainer.run(DeviceBatches(stream, self.device), max_epochs=1, epoch_length=steps)
        return timer.iterations()

    def train_bare(
        self, batches: Iterable[dict[str, Any]], steps: int, views: Views | None = None
    ) -> list[dict[str, float]]:
        """Trains without the handlers that only watch.

        Args:
            batches: at least as many as there are steps.
            steps: iterations.
            views: other views than those of the run.

        Returns:
            What ``train`` returns.
        """
        trainer = create_trainer(self.step(views or self.views), seed=self.views.seed)
        timer = PhaseTimer(self.device)
        timer.attach_first(trainer)
        GradientClipper(self.model, self.schedule.gradient_clip).attach(trainer)
        self.ema.attach(trainer)
        timer.attach_last(trainer)
        trainer.run(DeviceBatches(batches, self.device), max_epochs=1, epoch_length=steps)
        return timer.iterations()

    def train_on_noise(self, batch_size: int, side: int, steps: int) -> dict[str, Any]:
        """Trains on views of one size; a first step is not timed.

        Args:
            batch_size: patches of either pool.
            side: of patches and views in pixels, a multiple of 16.
            steps: timed steps.

        Returns:
            Both sizes, "step_seconds", "images_per_second" and "memory_gib", as plain values.
        """
        image = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8)
        mask = torch.randint(0, len(self.names), (batch_size, side, side), dtype=torch.uint8)
        batch = {"labeled": {"image": image, "mask": mask}, "unlabeled": {"image": image}}
        views = replace(self.views, sizes=(side, side))
        with PeakMemory(self.device) as memory:
            timed = self.train_bare([batch] * (steps + 1), steps + 1, views)[1:]
        seconds = spread([whole(iteration) for iteration in timed])
        return {
            "batch_size": batch_size,
            "image_size": side,
            "step_seconds": seconds,
            "images_per_second": 2 * batch_size / seconds["median"],
            "memory_gib": memory.in_gib(),
        }

    def evaluate(self, batches: EvaluationBatches) -> float:
        """Evaluates the averaged model; returns seconds."""
        return seconds_of(lambda: self.evaluator.run(DeviceBatches(batches, self.device)))

    def save(self, path: Path) -> None:
        """Writes what a checkpoint holds."""
        parts: dict[str, Any] = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        state = {name: part.state_dict() for name, part in parts.items()}
        write_whole(path, lambda file: torch.save(state, file))
