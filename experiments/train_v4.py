"""V4: the averaged model teaches on weak views, the student learns on strong ones.

    python -m experiments.train_v4 --data-root DATA

Network and supervised losses are V3's; what differs is whose votes are trusted, and on what they
are learnt. What has been measured is in experiments/RESULTS.md, what was tried for it in
experiments/V4_TRIALS.md; ``main`` is the composition.
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
from experiments.v4_options import BalanceOptions, StrongOptions, TeacherOptions
from ignite_salak.augment import ClassConfidence
from ignite_salak.data.loaders import RareClasses
from ignite_salak.handlers import EMAUpdater
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps import MeanTeacherStep
from ignite_salak.steps.device import resolve_precision
from ignite_salak.steps.mean_teacher import AlignedModel
from ignite_salak.steps.strong_views import StrongViews


@dataclass
class Options:
    """Trains V4 on a folder of patches, few of them with masks.

    --config FILE takes the options of an earlier run's config.json, and later flags win; --debug
    shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=lambda: LossOptions(use_class_weights=False))
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    strong: StrongOptions = field(default_factory=StrongOptions)
    balance: BalanceOptions = field(default_factory=BalanceOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(default_factory=lambda: ScheduleOptions(ema_decay=0.996))
    run: RunOptions = field(
        default_factory=lambda: RunOptions(checkpoint_dir=Path("checkpoints_v4"))
    )
    monitors: MonitorOptions = field(default_factory=MonitorOptions)


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files."""
    options = parse(Options, arguments)
    run, schedule, teacher = options.run, options.schedule, options.teacher
    device = prepare(run)
    precision = resolve_precision(run.precision, device)
    print_learning_rate_hint(schedule)
    teacher.print_hints(schedule.num_steps)

    # Data
    data = load_data(
        options.data,
        run,
        batch_size=schedule.batch_size,
        device=device,
        panels=options.monitors.panels,
        watch=options.monitors.watch_patches,
    )
    count = data.classes.num_classes
    if options.balance.rare_sampling:
        patch = int(data.labeled_pixels.sum(axis=1).max())  # pixels
        data.stream.rare = RareClasses(data.labeled_pixels, least=max(1, patch // 256))

    # Student and teacher
    spec = options.model.spec(count)
    model = build_model(spec, options.model, run, device)
    ema = EMAUpdater(model, schedule.ema_decay)
    optimizer = schedule.build_optimizer(
        model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
    )

    # Losses, thresholds, views, step
    weights = options.balance.class_weights(data) if options.loss.use_class_weights else None
    prior = options.balance.log_prior(data, schedule.batch_size)
    loss = CombinedLoss(options.loss.weights(), weights, prior).to(device)
    thresholds = teacher.thresholds(data, schedule.num_steps, device)
    alignment = teacher.distribution_alignment(data, device)
    paste = ClassConfidence(count, device=device) if options.strong.paste else None
    step = MeanTeacherStep(
        parallel(model, device),
        ema.model,
        optimizer,
        loss,
        thresholds=thresholds,
        views=options.augmentation.views(options.data.input_size, run.seed),
        strong=StrongViews(run.seed, options.strong.color_views(), options.strong.cutmix, paste),
        weight=teacher.st_loss_weight,
        ramp=teacher.st_ramp_iters,
        alignment=alignment,
        turning=teacher.turning(run.seed),
        doubt=teacher.doubt_weights,
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )

    # Engines, handlers, run
    followers = {"thresholds": thresholds, "class_confidence": paste, "alignment": alignment}
    recipe = Recipe(
        "Training V4",
        spec,
        model,
        ema,
        optimizer,
        step,
        labeler=AlignedModel(ema.model, alignment) if step.weight > 0 else None,
        st_advice=teacher.advice(),
        thresholds=thresholds.values,
        alignment=alignment if step.weight > 0 else None,
        state={name: each for name, each in followers.items() if each is not None},
    )
    train(options, data, device, precision, recipe)


if __name__ == "__main__":
    sys.exit(run_script(main, None))
