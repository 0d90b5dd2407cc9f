"""S4GAN, V1 and V2 of the lineage: DeepLabV2 and a discriminator that picks what to learn from.

    python -m experiments.train_s4gan --data-root DATA
    python -m experiments.train_s4gan --data-root DATA --v2

``main`` is the composition, from top to bottom.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from experiments.console import parse, run_script
from experiments.data import load_data
from experiments.launch import parallel
from experiments.learning_rate import print_learning_rate_hint
from experiments.options import (
    AugmentationOptions,
    DataOptions,
    ModelOptions,
    MonitorOptions,
    RunOptions,
    ScheduleOptions,
)
from experiments.run_folder import prepare
from experiments.training import Recipe, build_model, train
from ignite_salak.handlers import EMAUpdater, WarmupCosine
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.discriminator import Discriminator
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.models.synchronized import synchronize
from ignite_salak.randomness import derive_seed
from ignite_salak.steps.adversarial import AdversarialStep
from ignite_salak.steps.device import resolve_precision


@dataclass
class AdversarialOptions:
    """Discriminator."""

    st_threshold: tuple[float, float] = (0.6, 0.6)
    """Score of the discriminator from which a patch is learnt from, at the first and at the last
    iteration."""
    st_loss_weight: float = 1.0
    """Factor of the self-training loss."""
    fm_loss_weight: float = 0.1
    """Factor of the feature matching loss."""
    discriminator_start_iter: int = 1
    """First iteration of the discriminator; training is supervised before."""
    discriminator_learning_rate: float = 1e-4
    """Initial learning rate of the discriminator (Adam)."""


@dataclass
class Options:
    """Trains S4GAN on a folder of patches, few of them with masks.

    V1 is the default: ResNet-101 at output stride 8, no warm-up, no clipping, and the last weights
    are judged, not an average. The files named ``_ema`` then hold these. --num-heads and
    --use-multi-head change nothing: S4GAN has one head. DeepLabV2 has no decoder either, so that
    --decoder-channels is for DeepLabV3+ alone, and --decoder-lr-factor for V2's pyramid.

    --config FILE takes the options of an earlier run's config.json, and later flags win; --debug
    shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(
        default_factory=lambda: ModelOptions(backbone="resnet101", output_stride=8)
    )
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(
        default_factory=lambda: ScheduleOptions(
            warmup_iters=0, gradient_clip=math.inf, ema_decay=0.0
        )
    )
    run: RunOptions = field(
        default_factory=lambda: RunOptions(checkpoint_dir=Path("checkpoints_s4gan"))
    )
    monitors: MonitorOptions = field(default_factory=MonitorOptions)
    architecture: Literal["deeplabv2", "deeplabv3plus"] = "deeplabv2"
    """Network: the authors', or that of the other recipes."""
    v2: bool = False
    """V2's defaults: EMA, clipping and warm-up as in V3, a threshold that rises from 0.05 to 0.20,
    the discriminator from iteration 500."""

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Options | None:
        """Returns the defaults of ``--v2`` where it is asked for.

        Raises:
            ValueError: --v2 together with --config.
        """
        if "--v2" not in arguments:
            return None
        if any(flag.split("=")[0] == "--config" for flag in arguments):
            raise ValueError("--v2 sets defaults, as --config FILE does: leave one of them away")
        late = AdversarialOptions(st_threshold=(0.05, 0.20), discriminator_start_iter=500)
        return cls(adversarial=late, schedule=ScheduleOptions(), v2=True)


def main(arguments: Sequence[str]) -> None:
    """Trains, from options to final files.

    Deviation from the authors' program: the learning rates of both networks follow half a cosine,
    as in the other recipes, not (1 - t / T)^0.9.
    """
    options = parse(Options, arguments)
    run, schedule, adversarial = options.run, options.schedule, options.adversarial
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
    num_classes = data.classes.num_classes

    # Model, discriminator, losses, step
    spec = ModelSpec(
        num_classes,
        options.model.backbone,
        num_heads=1,
        output_stride=options.model.output_stride,
        decoder_channels=options.model.decoder_channels,
        architecture=options.architecture,
        aspp_rates=options.model.aspp_rates,
    )
    model = build_model(spec, options.model, run, device)
    ema = EMAUpdater(model, schedule.ema_decay)
    optimizer = schedule.build_optimizer(
        model.parameter_groups(schedule.learning_rate, schedule.decoder_lr_factor)
    )
    torch.manual_seed(derive_seed(run.seed, "discriminator"))
    discriminator = synchronize(Discriminator(num_classes).to(device), device)
    discriminator_optimizer = torch.optim.Adam(
        [{"name": "discriminator", "params": list(discriminator.parameters())}],
        lr=adversarial.discriminator_learning_rate,
        betas=(0.9, 0.99),
    )
    step = AdversarialStep(
        parallel(model, device),
        optimizer,
        parallel(discriminator, device),
        discriminator_optimizer,
        CombinedLoss({"ce": 1.0}),
        CombinedLoss({"ce": 1.0}),
        num_classes=num_classes,
        views=options.augmentation.views(options.data.input_size, run.seed),
        total=schedule.num_steps,
        thresholds=adversarial.st_threshold,
        weight=adversarial.st_loss_weight,
        matching_weight=adversarial.fm_loss_weight,
        start_iteration=adversarial.discriminator_start_iter,
        accumulation=schedule.grad_accumulation,
        device=device,
        precision=precision,
    )
    decay = WarmupCosine(
        discriminator_optimizer, warmup=schedule.warmup_iters, total=schedule.num_steps
    )

    # Engines, handlers, run
    recipe = Recipe(
        "Training S4GAN V2" if options.v2 else "Training S4GAN V1",
        spec,
        model,
        ema,
        optimizer,
        step,
        labeler=model if step.weight > 0 else None,
        st_advice="lower --st-threshold, or --discriminator-learning-rate",
        thresholds=[0.0] * num_classes,  # a patch passes or not, whatever the class
        handlers=[decay],
        state={"discriminator": discriminator, "discriminator_optimizer": discriminator_optimizer},
    )
    train(options, data, device, precision, recipe)


if __name__ == "__main__":
    sys.exit(run_script(main, None))
