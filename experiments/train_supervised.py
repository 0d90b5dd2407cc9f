"""Supervised training alone: what every other recipe has to beat.

    python -m experiments.train_supervised --data-root DATA --labeled-files labeled_4.txt

The lower bound of the comparison; with all labels (``--labeled-files labeled_all.txt``) the upper
one. It is V3 without self-training, bit for bit: same labelled batches, views, losses and average.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.console import parse, run_script
from experiments.data import load_data
from experiments.launch import parallel
from experiments.learning_rate import print_learning_rate_hint
from experiments.options import (
    AugmentationOptions,
    DataOptions,
    LossOptions,
    ModelOptions,
    MonitorOptions,
    RunOptions,
    ScheduleOptions,
)
from experiments.run_folder import prepare
from experiments.training import Recipe, build_model, train
from ignite_salak.handlers import EMAUpdater
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps.device import resolve_precision
from ignite_salak.steps.supervised import SupervisedStep


def _run_options() -> RunOptions:
    return RunOptions(checkpoint_dir=Path("checkpoints_supervised"))


@dataclass
class Options:
    """Trains on labelled patches alone.

    --config FILE takes the options of an earlier run's config.json, and later flags win; --debug
    shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    run: RunOptions = field(default_factory=_run_options)
    monitors: MonitorOptions = field(default_factory=MonitorOptions)


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files."""
    options = parse(Options, arguments)
    run, schedule = options.run, options.schedule
    device = prepare(run)
    precision = resolve_precision(run.precision, device)
    print_learning_rate_hint(schedule)

    # Data
    data = load_data(
        options.data,
        run,
        batch_size=schedule.batch_size,
        device=device,
        panels=options.monitors.panels,
        unlabeled=False,
    )

    # Model, loss, step
    spec = options.model.spec(data.classes.num_classes)
    model = build_model(spec, options.model, run, device)
    ema = EMAUpdater(model, schedule.ema_decay)
    optimizer = schedule.build_optimizer(
        model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
    )
    class_weights = data.class_weights if options.loss.use_class_weights else None
    step = SupervisedStep(
        parallel(model, device),
        optimizer,
        CombinedLoss(options.loss.weights(), class_weights).to(device),
        views=options.augmentation.views(options.data.input_size, run.seed),
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )

    # Engines, handlers, run
    recipe = Recipe("Training supervised", spec, model, ema, optimizer, step)
    train(options, data, device, precision, recipe)


if __name__ == "__main__":
    sys.exit(run_script(main, None))
