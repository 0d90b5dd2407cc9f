"""V3: DeepLabV3+ with voting heads, CE + Dice + focal loss, confidence pseudo-labels, EMA.

    python -m experiments.train_v3 --demo
    python -m experiments.train_v3 --data-root DATA

The recipe is that of the V3 quick reference; ``main`` is the composition, from top to bottom.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.handlers import EarlyStopping

from experiments.console import open_folder, parse, prepare, run_script, write_config
from experiments.data import load_data
from experiments.launch import parallel
from experiments.memory import MemorySettings, learning_rate_hint, memory_advice
from experiments.options import (
    AugmentationOptions,
    DataOptions,
    LossOptions,
    ModelOptions,
    MonitorOptions,
    RunOptions,
    ScheduleOptions,
    SelfTrainingOptions,
    comparable,
    from_json,
    to_dict,
)
from ignite_salak.augment import RandomGeometry
from ignite_salak.data.device_batches import DeviceBatches
from ignite_salak.data.plantation import make_plantation
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
    STPixelCounter,
    TrainingLog,
    WarmupCosine,
    restore,
    validation_score,
)
from ignite_salak.losses import CombinedLoss
from ignite_salak.metrics import ClassIoU
from ignite_salak.models.compiling import compile_network
from ignite_salak.models.model_file import save_model
from ignite_salak.models.synchronized import synchronize
from ignite_salak.randomness import derive_seed
from ignite_salak.ranks import is_first
from ignite_salak.report import reporting
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.device import resolve_precision
from ignite_salak.steps.self_training import Views


@dataclass
class Options:
    """Trains V3 on a folder of patches, few of them with masks.

    --config FILE takes the options of an earlier run's config.json, and later flags win; --debug
    shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    self_training: SelfTrainingOptions = field(default_factory=SelfTrainingOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    run: RunOptions = field(default_factory=RunOptions)
    monitors: MonitorOptions = field(default_factory=MonitorOptions)
    demo: bool = False
    """Train a small network for about two minutes on a synthetic plantation."""


DEMO = Path(__file__).with_name("demo_v3.json")
"""Options that fit the synthetic plantation and two CPU cores."""


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files."""
    options = parse(Options, arguments, from_json(Options, DEMO) if "--demo" in arguments else None)
    run, schedule, folder = options.run, options.schedule, options.run.checkpoint_dir
    device = prepare(run)
    precision = resolve_precision(run.precision, device)
    memory = MemorySettings.of(options, device)
    hint = learning_rate_hint(
        schedule.batch_size, schedule.learning_rate, optimizer=schedule.optimizer
    )
    if hint is not None and is_first():
        print(hint)

    # Data
    if options.demo and options.data.data_root is not None:
        if idist.get_local_rank() == 0:
            make_plantation(options.data.data_root)
        idist.barrier()
    panels = options.monitors.panels
    data = load_data(
        options.data, run, batch_size=schedule.batch_size, device=device, panels=panels
    )
    classes = data.classes
    thresholds = options.self_training.thresholds(classes)

    # Model, losses, step
    torch.manual_seed(derive_seed(run.seed, "model"))
    spec = options.model.spec(classes.num_classes)
    with idist.one_rank_first(local=True):  # it may have to download weights
        model = spec.build(
            pretrained=options.model.pretrained, weights_file=options.model.encoder_weights
        )
    model = synchronize(model.to(device).to(memory_format=torch.channels_last), device)
    optimizer = schedule.build_optimizer(
        model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
    )
    class_weights = data.class_weights if options.loss.use_class_weights else None
    step = SelfTrainingStep(
        parallel(model, device),
        optimizer,
        CombinedLoss(options.loss.weights(), class_weights).to(device),
        CombinedLoss(options.loss.weights()).to(device),
        thresholds=thresholds,
        views=Views(
            RandomGeometry(options.augmentation.random_mirror, options.augmentation.scale_range()),
            options.augmentation.sizes(options.data.input_size),
            run.seed,
        ),
        weight=options.self_training.st_loss_weight,
        start_iteration=options.self_training.st_start_iter,
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )

    # Engines, and what handlers keep
    trainer = create_trainer(step, seed=run.seed)
    ema = EMAUpdater(model, schedule.ema_decay)
    if run.compile:
        for network in (model, ema.model):
            compile_network(network)
    scores = ClassIoU(classes.names, device)
    evaluator = create_evaluator(ema.model, {"scores": scores}, device=device, precision=precision)

    sources = data.split.sources(data.index)
    facts = {
        "input_size": options.data.input_size,
        "thresholds": dict(zip(classes.names, thresholds, strict=True)),
        "sources": {pool: sources[pool] for pool in ("labelled", "validation")},
    }

    def save_ema(path: Path, scores: dict[str, Any]) -> None:
        save_model(path, ema.model, spec, classes, {**facts, **scores})

    best = BestModelSaver(folder / "best_model_ema.pth", save_ema)
    st_pixels = STPixelCounter(classes.names, device)
    history = History(folder / "history.csv")
    health = Health(classes.names, self_training=step.weight > 0)
    patience = sys.maxsize if run.early_stop_patience is None else run.early_stop_patience
    early = EarlyStopping(patience, validation_score, trainer)
    summary = RunSummary(folder / "summary.json", health, classes.names, total=schedule.num_steps)
    monitors = options.monitors.build(folder, to_dict(options))
    progress = ProgressBar("Training V3")
    stop = GracefulStop()
    fixed = {
        "architecture": asdict(spec),
        "class list": list(classes.names),
        "data split": data.split.digest(data.index),
    }
    state: dict[str, Any] = {
        "run": RunDescription(fixed, comparable(options)),
        "trainer": trainer,
        "model": model,
        "optimizer": optimizer,
        "ema": ema,
        "best": best,
        "early_stop": early,
        "st_pixels": st_pixels,
    }

    # Handlers: the order of these lines is the order in which they run
    WarmupCosine(optimizer, warmup=schedule.warmup_iters, total=schedule.num_steps).attach(trainer)
    GradientClipper(model, schedule.gradient_clip).attach(trainer)
    ema.attach(trainer)
    st_pixels.attach(trainer)
    TrainingLog(run.log_every, device).attach(trainer)
    progress.attach(trainer)
    judged = (DeviceBatches(batches, device) for batches in (data.validation, data.training))
    Evaluation(evaluator, scores, *judged, every=run.eval_every).attach(trainer)
    history.attach(trainer)
    best.attach(trainer)
    EvaluationReport(classes.names).attach(trainer)
    health.attach(trainer)
    summary.attach(trainer)
    Panels(
        ema.model,
        classes,
        folder / "panels",
        validation=data.panel_validation,
        unlabeled=data.panel_unlabeled,
        labeler=model,
        thresholds=thresholds if step.weight > 0 else None,
        device=device,
        precision=precision,
    ).attach(trainer)
    for monitor in monitors:
        monitor.attach(trainer)
    trainer.add_event_handler(TrainingEvents.EVALUATED, early)
    stop.attach(trainer)
    checkpoints = Checkpoints(
        folder, state, latest_every=run.save_latest_every, periodic_every=run.save_pred_every
    )
    checkpoints.attach(trainer)

    # Resume, run, final files
    if run.restore_from is not None:
        data.stream.start = restore(
            run.restore_from, state, total=schedule.num_steps, device=device
        )
    open_folder(run)
    weights = dict(zip(classes.names, data.class_weights.tolist(), strict=True))
    found = {"classes": classes.to_dict(), "class_weights": weights, "sources": sources}
    write_config(folder, options, device, {**facts, **found})
    if data.stream.start >= schedule.num_steps or early.counter >= early.patience:
        print(f"the run is complete: {data.stream.start} of {schedule.num_steps} iterations")
    else:
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
        return
    if stop.signal_name is not None:
        print(
            f"stopped by {stop.signal_name} at iteration {trainer.state.iteration}; continue with "
            f"--restore-from {checkpoints.latest}"
        )
        return
    ending = {**facts, "iteration": trainer.state.iteration}
    save_model(folder / "final_model_ema.pth", ema.model, spec, classes, ending)
    save_model(folder / "final_model.pth", model, spec, classes, ending)
    print(f"best validation mIoU {best.score:.4f} at iteration {best.iteration}: {best.path}")
    print(f"{folder} holds: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if options.demo:
        print(_YOUR_OWN_DATA)


_YOUR_OWN_DATA = """\
Train on your own patches, once they lie in DATA/<folder>/images and DATA/<folder>/masks:
  python -m experiments.train_v3 --data-root DATA --class-mapping DATA/class_mapping.csv \
--checkpoint-dir checkpoints_v3"""


if __name__ == "__main__":
    sys.exit(run_script(main, None))
