"""V3: DeepLabV3+ with voting heads, CE + Dice + focal loss, confidence pseudo-labels, EMA.

    python -m experiments.train_v3 --demo
    python -m experiments.train_v3 --data-root DATA

The recipe is that of the V3 quick reference; ``main`` is the composition, from top to bottom.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import ignite.distributed as idist

from experiments.config_file import from_json
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
    SelfTrainingOptions,
)
from experiments.run_folder import prepare
from experiments.training import Recipe, build_model, train
from ignite_salak.data.plantation import make_plantation
from ignite_salak.handlers import EMAUpdater
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.device import resolve_precision


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

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Options | None:
        """Returns the defaults of ``--demo`` where it is asked for."""
        return from_json(cls, DEMO) if "--demo" in arguments else None


DEMO = Path(__file__).with_name("demo_v3.json")
"""Options that fit the synthetic plantation and two CPU cores."""


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files."""
    options = parse(Options, arguments)
    run, schedule = options.run, options.schedule
    device = prepare(run)
    precision = resolve_precision(run.precision, device)
    print_learning_rate_hint(schedule)

    # Data
    if options.demo and options.data.data_root is not None:
        if idist.get_local_rank() == 0:
            make_plantation(options.data.data_root)
        idist.barrier()
    data = load_data(
        options.data,
        run,
        batch_size=schedule.batch_size,
        device=device,
        panels=options.monitors.panels,
        watch=options.monitors.watch_patches,
    )
    thresholds = options.self_training.thresholds(data.classes)

    # Model, losses, step
    spec = options.model.spec(data.classes.num_classes)
    model = build_model(spec, options.model, run, device)
    ema = EMAUpdater(model, schedule.ema_decay)
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
        views=options.augmentation.views(options.data.input_size, run.seed),
        weight=options.self_training.st_loss_weight,
        start_iteration=options.self_training.st_start_iter,
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )

    # Engines, handlers, run
    recipe = Recipe(
        "Training V3",
        spec,
        model,
        ema,
        optimizer,
        step,
        labeler=model if step.weight > 0 else None,
        st_advice="lower the thresholds by 0.05-0.10 (--classwise-thresholds), or use "
        "--confidence-threshold 0.50 --no-use-classwise-threshold",
        thresholds=thresholds,
    )
    ended = train(options, data, device, precision, recipe)
    if ended and options.demo:
        print(_YOUR_OWN_DATA)


_YOUR_OWN_DATA = """\
Train on your own patches, once they lie in DATA/<folder>/images and DATA/<folder>/masks:
  python -m experiments.train_v3 --data-root DATA --class-mapping DATA/class_mapping.csv \
--checkpoint-dir checkpoints_v3"""


if __name__ == "__main__":
    sys.exit(run_script(main, None))
