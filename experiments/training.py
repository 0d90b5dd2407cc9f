"""What all recipes share: the network, and everything from the engines to the final files."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from ignite.handlers import EarlyStopping
from torch import Tensor
from torch.optim import Optimizer

from experiments.config_file import comparable, to_dict
from experiments.data import RunData
from experiments.memory import memory_advice
from experiments.options import (
    DataOptions,
    ModelOptions,
    MonitorOptions,
    RunOptions,
    ScheduleOptions,
)
from experiments.remedies import MemorySettings
from experiments.run_folder import open_folder, write_config
from ignite_salak.alignment import DistributionAlignment
from ignite_salak.data.device_batches import DeviceBatches
from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import (
    BestModelSaver,
    Checkpoints,
    EMAUpdater,
    Evaluation,
    EvaluationReport,
    GracefulStop,
    GradientClipper,
    Health,
    History,
    Panels,
    ProgressBar,
    RunDescription,
    RunSummary,
    SourceWatch,
    STPixelCounter,
    TrainingLog,
    WarmupCosine,
    restore,
    validation_score,
)
from ignite_salak.metrics import ClassIoU
from ignite_salak.models.compiling import compile_network
from ignite_salak.models.model_file import ModelSpec, save_model
from ignite_salak.models.synchronized import synchronize
from ignite_salak.randomness import derive_seed
from ignite_salak.ranks import is_first
from ignite_salak.report import reporting

__all__ = ["Recipe", "RecipeOptions", "build_model", "train"]


class RecipeOptions(Protocol):
    """The option groups that every recipe has."""

    data: DataOptions
    model: ModelOptions
    schedule: ScheduleOptions
    run: RunOptions
    monitors: MonitorOptions


class Handler(Protocol):
    """Whatever attaches to a trainer."""

    def attach(self, engine: Engine) -> None:
        """Adds event handlers."""


@dataclass(frozen=True)
class Recipe:
    """What one recipe trains, and how; the rest is the same for all.

    Attributes:
        label: what stands before the progress bar.
        spec: the architecture.
        model: the network that is trained, as ``build_model`` made it.
        ema: its average, which is judged and kept.
        optimizer: of the model's parameters.
        step: one iteration.
        labeler: the network that makes pseudo-labels, drawn on the panels; None for no
            self-training.
        thresholds: confidence from which a pixel becomes a pseudo-label, one per class; a tensor
            may change during the run.
        alignment: shifts the votes that become pseudo-labels; None for votes as they are. Model
            files keep its factors.
        st_advice: what the recipe's user may do where too few pixels become pseudo-labels, or a
            class is never found; "" for nothing.
        handlers: the recipe's own, attached behind the average and before the logs.
        state: what else a resumed run needs, by name.
    """

    label: str
    spec: ModelSpec
    model: Any
    ema: EMAUpdater
    optimizer: Optimizer
    step: Any
    labeler: torch.nn.Module | None = None
    thresholds: Sequence[float] | Tensor = ()
    alignment: DistributionAlignment | None = None
    st_advice: str = ""
    handlers: Sequence[Handler] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


def build_model(
    spec: ModelSpec, options: ModelOptions, run: RunOptions, device: torch.device
) -> Any:
    """Builds the network with weights that depend on the seed alone, ready for several ranks.

    Args:
        spec: the architecture.
        options: where the encoder's weights come from.
        run: seed.
        device: where it goes.
    """
    torch.manual_seed(derive_seed(run.seed, "model"))
    with idist.one_rank_first(local=True):  # it may have to download weights
        model = spec.build(pretrained=options.pretrained, weights_file=options.encoder_weights)
    return synchronize(model.to(device).to(memory_format=torch.channels_last), device)


def train(
    options: RecipeOptions, data: RunData, device: torch.device, precision: str, recipe: Recipe
) -> bool:
    """Trains, from engines to final files.

    Args:
        options: all options of the script.
        data: what is trained and judged on.
        device: where.
        precision: "fp32" or "bf16".
        recipe: what is trained, and how.

    Returns:
        Whether the run came to its end, and this is the rank that says so.
    """
    run, schedule, folder = options.run, options.schedule, options.run.checkpoint_dir
    classes, ema, self_training = data.classes, recipe.ema, recipe.labeler is not None
    if run.compile:
        for network in (recipe.model, ema.model):
            compile_network(network)

    # Engines, and what handlers keep
    trainer = create_trainer(recipe.step, seed=run.seed)
    scores = ClassIoU(classes.names, device)
    evaluator = create_evaluator(ema.model, {"scores": scores}, device=device, precision=precision)
    sources = data.split.sources(data.index)
    facts: dict[str, Any] = {
        "input_size": options.data.input_size,
        "sources": {pool: sources[pool] for pool in ("labelled", "validation")},
    }
    chosen_patches = data.split.chosen_patches(data.index)
    if chosen_patches:
        facts["labelled_patches"] = chosen_patches

    def thresholds() -> dict[str, float]:
        values = recipe.thresholds
        values = values.tolist() if isinstance(values, Tensor) else values
        return dict(zip(classes.names, values, strict=False))

    def save(path: Path, model: torch.nn.Module, found: dict[str, Any]) -> None:
        known = {**facts, "thresholds": thresholds(), **found}
        if recipe.alignment is not None:
            factors = recipe.alignment.factors.tolist()
            known["alignment"] = dict(zip(classes.names, factors, strict=True))
        save_model(path, model, recipe.spec, classes, known)

    def save_ema(path: Path, found: dict[str, Any]) -> None:
        save(path, ema.model, found)

    best = BestModelSaver(folder / "best_model_ema.pth", save_ema)
    st_pixels = STPixelCounter(classes.names, device)
    health = Health(classes.names, self_training=self_training, st_advice=recipe.st_advice)
    patience = sys.maxsize if run.early_stop_patience is None else run.early_stop_patience
    early = EarlyStopping(patience, validation_score, trainer)
    summary = RunSummary(folder / "summary.json", health, classes.names, total=schedule.num_steps)
    monitors = options.monitors.build(folder, to_dict(options))
    progress = ProgressBar(recipe.label)
    stop = GracefulStop()
    fixed = {
        "architecture": asdict(recipe.spec),
        "class list": list(classes.names),
        "data split": data.split.digest(data.index),
    }
    state: dict[str, Any] = {
        "run": RunDescription(fixed, comparable(to_dict(options))),
        "trainer": trainer,
        "model": recipe.model,
        "optimizer": recipe.optimizer,
        "ema": ema,
        "best": best,
        "early_stop": early,
        "st_pixels": st_pixels,
        **recipe.state,
    }
    checkpoints = Checkpoints(
        folder, state, latest_every=run.save_latest_every, periodic_every=run.save_pred_every
    )

    # Handlers: the order of these lines is the order in which they run
    WarmupCosine(recipe.optimizer, warmup=schedule.warmup_iters, total=schedule.num_steps).attach(
        trainer
    )
    GradientClipper(recipe.model, schedule.gradient_clip).attach(trainer)
    ema.attach(trainer)
    for handler in recipe.handlers:
        handler.attach(trainer)
    if self_training:
        st_pixels.attach(trainer)
    TrainingLog(run.log_every, device).attach(trainer)
    progress.attach(trainer)
    judged = (DeviceBatches(batches, device) for batches in (data.validation, data.training))
    Evaluation(evaluator, scores, *judged, every=run.eval_every).attach(trainer)
    History(folder / "history.csv").attach(trainer)
    best.attach(trainer)
    EvaluationReport(classes.names).attach(trainer)
    if self_training and data.watched is not None:
        names = [data.index.source_name(source) for source in range(len(data.index.sources))]
        watched = DeviceBatches(data.watched, device)
        SourceWatch(
            ema.model,
            watched,
            names,
            classes.names,
            folder / "source_classes.csv",
            device=device,
            precision=precision,
        ).attach(trainer)
    health.attach(trainer)
    summary.attach(trainer)
    Panels(
        ema.model,
        classes,
        folder / "panels",
        validation=data.panel_validation,
        unlabeled=data.panel_unlabeled,
        labeler=recipe.labeler,
        thresholds=recipe.thresholds if self_training else None,
        device=device,
        precision=precision,
    ).attach(trainer)
    for monitor in monitors:
        monitor.attach(trainer)
    trainer.add_event_handler(TrainingEvents.EVALUATED, early)
    stop.attach(trainer)
    checkpoints.attach(trainer)

    # Resume, run, final files
    if run.restore_from is not None:
        data.stream.start = restore(
            run.restore_from, state, total=schedule.num_steps, device=device
        )
    open_folder(run)
    weights = dict(zip(classes.names, data.class_weights.tolist(), strict=True))
    found = {"classes": classes.to_dict(), "class_weights": weights, "sources": sources}
    write_config(folder, options, device, {**facts, "thresholds": thresholds(), **found})
    if data.stream.start >= schedule.num_steps or early.counter >= early.patience:
        if is_first():
            print(f"the run is complete: {data.stream.start} of {schedule.num_steps} iterations")
    else:
        memory = MemorySettings.of(options, device)
        with (
            reporting(folder),
            summary,
            ExitStack() as stack,
            memory_advice(memory, device, trainer),
        ):
            for close in (*(monitor.close for monitor in monitors), progress.close):
                stack.callback(close)
            trainer.run(
                DeviceBatches(data.stream, device), max_epochs=1, epoch_length=schedule.num_steps
            )
    if not is_first():
        return False
    if stop.signal_name is not None:
        print(
            f"stopped by {stop.signal_name} at iteration {trainer.state.iteration}; continue with "
            f"--restore-from {checkpoints.latest}"
        )
        return False
    ending = {"iteration": trainer.state.iteration}
    save(folder / "final_model_ema.pth", ema.model, ending)
    save(folder / "final_model.pth", recipe.model, ending)
    print(f"best validation mIoU {best.score:.4f} at iteration {best.iteration}: {best.path}")
    print(f"{folder} holds: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return True
