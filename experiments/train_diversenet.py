"""DiverseNet's DiverseHead: ten heads vote, one learns from the vote, half of them are perturbed.

    python -m experiments.train_diversenet --data-root DATA --mode freezing
    python -m experiments.train_diversenet --data-root DATA --mode dropout

Ma et al. 2023, https://arxiv.org/abs/2311.13716; ``ignite_salak.steps.diverse_heads`` says what is
theirs and what is not. Besides, everything that is not the method is that of the other recipes:
network, views, loss (theirs: ``--no-use-combined-loss --no-use-class-weights``), schedule, and the
averaged model, which they do not have (``--ema-decay 0``). The loss is a sum over
heads, with a gradient about ten times that of a mean: --gradient-clip is 100 instead of 10.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
from ignite_salak.steps.diverse_heads import DiverseHeadsStep, WeightedVoteModel

_WEIGHT_PER_HEAD = {"freezing": 0.75, "dropout": 1.5}
_UNFROZEN = 3500 / 15000  # share of the authors' iterations


@dataclass
class DiverseOptions:
    """Diverse heads."""

    mode: Literal["freezing", "dropout"] = "freezing"
    """Freeze half of the heads in every iteration, or let half of them drop features."""
    st_loss_weight: float | None = None
    """Factor of the loss of the head that learns from the vote, beside the sum of all heads'
    labelled losses; with --mode freezing 0.75, with --mode dropout 1.5 times the number of heads if
    not given; 0 switches self-training off."""
    st_start_iter: int = 500
    """First iteration in which a head learns from the vote (the authors': 1)."""
    freeze_start_iter: int | None = None
    """First iteration with frozen heads; 7/30 of --num-steps if not given."""

    def weight(self, num_heads: int) -> float:
        """Returns the factor of the loss against the vote."""
        if self.st_loss_weight is None:
            return _WEIGHT_PER_HEAD[self.mode] * num_heads
        return self.st_loss_weight

    def perturb_from(self, num_steps: int) -> int:
        """Returns the first iteration in which heads are perturbed."""
        if self.mode == "dropout":
            return 1
        if self.freeze_start_iter is None:
            return round(_UNFROZEN * num_steps) + 1
        return self.freeze_start_iter


def _model_options() -> ModelOptions:
    return ModelOptions(num_heads=10)


def _schedule_options() -> ScheduleOptions:
    return ScheduleOptions(gradient_clip=100.0)


def _run_options() -> RunOptions:
    return RunOptions(checkpoint_dir=Path("checkpoints_diversenet"))


@dataclass
class Options:
    """Trains DiverseHead on a folder of patches, few of them with masks.

    --config FILE takes the options of an earlier run's config.json, and later flags win; --debug
    shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=_model_options)
    loss: LossOptions = field(default_factory=LossOptions)
    diverse: DiverseOptions = field(default_factory=DiverseOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(default_factory=_schedule_options)
    run: RunOptions = field(default_factory=_run_options)
    monitors: MonitorOptions = field(default_factory=MonitorOptions)


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files."""
    options = parse(Options, arguments)
    run, schedule, diverse = options.run, options.schedule, options.diverse
    if run.compile and diverse.mode == "dropout":
        raise ValueError("--compile would start anew for every draw of --mode dropout; leave it")
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
        watch=options.monitors.watch_patches,
    )

    # Model, losses, step
    spec = options.model.spec(data.classes.num_classes)
    model = build_model(spec, options.model, run, device)
    ema = EMAUpdater(model, schedule.ema_decay)
    optimizer = schedule.build_optimizer(
        model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
    )
    class_weights = data.class_weights if options.loss.use_class_weights else None
    step = DiverseHeadsStep(
        parallel(model, device),
        optimizer,
        CombinedLoss(options.loss.weights(), class_weights).to(device),
        CombinedLoss(options.loss.weights()).to(device),
        num_classes=data.classes.num_classes,
        mode=diverse.mode,
        views=options.augmentation.views(options.data.input_size, run.seed),
        weight=diverse.weight(spec.num_heads),
        start_iteration=diverse.st_start_iter,
        perturb_from=diverse.perturb_from(schedule.num_steps),
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )

    # Engines, handlers, run
    recipe = Recipe(
        "Training DiverseNet",
        spec,
        model,
        ema,
        optimizer,
        step,
        labeler=WeightedVoteModel(model) if step.weight > 0 else None,
        thresholds=(0.0,) * data.classes.num_classes,
    )
    train(options, data, device, precision, recipe)


if __name__ == "__main__":
    sys.exit(run_script(main, None))
