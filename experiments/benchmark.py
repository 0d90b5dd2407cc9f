"""How fast V3 trains here, where its time goes, and how a plain loop compares.

    python -m experiments.benchmark
    python -m experiments.benchmark --data-root DATA --output benchmark.json

Both train the same network on the same patches in views of the same sizes, in turns, so that a
machine that slows down meanwhile slows both; ``main`` is the composition, from top to bottom.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from experiments.arithmetic import peak_tflops_of, step_flops, utilisation
from experiments.benchmark_options import Options
from experiments.benchmark_tables import describe
from experiments.config_file import to_dict
from experiments.console import parse, run_script
from experiments.data import load_data
from experiments.machine import set_up, surroundings
from experiments.measured_run import MeasuredRun
from experiments.measurements import (
    Contender,
    Schedule,
    hardware,
    loading_rate,
    seconds_of,
    shares,
    whole,
)
from experiments.options import RunOptions, SelfTrainingOptions
from experiments.peak_memory import PeakMemory
from experiments.plain_loop import PlainLoop
from ignite_salak.augment import draw_size
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.loaders import EvaluationBatches, TrainingStream
from ignite_salak.data.plantation import make_plantation
from ignite_salak.files import write_json
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.deeplabv3plus import DeepLabV3Plus
from ignite_salak.randomness import derive_seed, torch_generator
from ignite_salak.ranks import rank_count
from ignite_salak.steps.device import resolve_precision


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes."""
    options = parse(Options, arguments)
    options.measuring.check()
    device = set_up(options.machine)
    if rank_count() > 1:
        raise ValueError("the benchmark measures one process: start it without torchrun")
    with TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder:
        report = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": {**surroundings(device), **hardware()},
            "options": to_dict(options),
            **_measure(options, device, Path(folder)),
        }
    write_json(options.measuring.output, report)
    print(f"{describe(report)}\n\nall numbers: {options.measuring.output}")


def _measure(options: Options, device: torch.device, folder: Path) -> dict[str, Any]:
    measuring, schedule, machine = options.measuring, options.schedule, options.machine
    precision = resolve_precision(machine.precision, device)
    seed, total = machine.seed, measuring.warmup_steps + measuring.steps

    # Data: training patches, and the patches that both are to judge
    if options.data.data_root is None:
        side = measuring.patch_size
        plantation = make_plantation(
            folder / "plantation", photos=8, photo_size=4 * side, patch_size=side
        )
        options.data.data_root = plantation.root
    run = RunOptions(seed=seed, num_workers=machine.num_workers)
    data = load_data(options.data, run, batch_size=schedule.batch_size, device=device)
    pools = data.stream.pools
    judged = np.resize(data.split.validation, measuring.eval_patches)
    batches = EvaluationBatches(
        _reread(pools["labeled"], judged, cached=True),
        batch_size=schedule.batch_size,
        num_workers=machine.num_workers,
        pin_memory=device.type == "cuda",
    )

    # What both train
    spec = options.model.spec(data.classes.num_classes)
    sizes = options.augmentation.sizes(options.data.input_size)
    weights = options.loss.weights()
    class_weights = data.class_weights if options.loss.use_class_weights else None
    common: dict[str, Any] = {
        "loss": CombinedLoss(weights, class_weights).to(device),
        "self_training_loss": CombinedLoss(weights).to(device),
        "thresholds": SelfTrainingOptions().thresholds(data.classes),
        "views": options.augmentation.views(options.data.input_size, seed),
        "schedule": schedule,
        "device": device,
    }

    def build() -> DeepLabV3Plus:
        torch.manual_seed(derive_seed(seed, "model"))
        weights_file = options.model.encoder_weights
        return spec.build(pretrained=options.model.pretrained, weights_file=weights_file).to(device)

    # Ours: in the first round, which is not timed, nothing else is in memory
    _say("ours: first round, not timed")
    ours = Contender()
    with PeakMemory(device) as ours.memory:
        measured = MeasuredRun(
            build(),
            **common,
            names=data.classes.names,
            folder=folder,
            precision=precision,
            compiled=machine.compile,
        )
        measured.train_bare(data.stream, total)
    measured.evaluate(batches)
    growth = []
    for batch_size, side in _settings(options, sizes[0]) if measuring.growth else ():
        _say(f"growth: batch {batch_size}, {side} pixels")
        growth.append(measured.train_on_noise(batch_size, side, measuring.growth_steps))
    loading = loading_rate(data.stream, total, ahead=2 * machine.num_workers)

    # The plain loop: the same
    plain = Contender()
    if measuring.plain:
        _say("plain loop: first round, not timed")
        with PeakMemory(device) as plain.memory:
            loop = PlainLoop(build(), **common)
            unread = {name: _reread(pool, pool.patches) for name, pool in pools.items()}
            stream = TrainingStream(
                unread["labeled"],
                unread.get("unlabeled"),
                batch_size=schedule.batch_size,
                seed=seed,
            )
            _train_plainly(loop, stream, total)
        loop.evaluate(_reread(pools["labeled"], judged[: schedule.batch_size]), schedule.batch_size)

    # In turns
    phases: list[dict[str, float]] = []
    for repetition in range(measuring.repetitions):
        _say(f"repetition {repetition + 1} of {measuring.repetitions}")
        timed = measured.train(data.stream, total)[measuring.warmup_steps :]
        phases += timed
        ours.steps.append([whole(iteration) for iteration in timed])
        ours.evaluations.append(measured.evaluate(batches) / len(judged))
        ours.saves.append(seconds_of(lambda: measured.save(folder / "ours.pth")))
        if measuring.plain:
            plain.steps.append(_train_plainly(loop, stream, total)[measuring.warmup_steps :])
            patches = _reread(pools["labeled"], judged)
            seconds = seconds_of(partial(loop.evaluate, patches, schedule.batch_size))
            plain.evaluations.append(seconds / len(judged))
            plain.saves.append(seconds_of(lambda: loop.save(folder / "plain.pth")))

    # What it means
    images = schedule.batch_size * len(pools)
    steps, judgements = schedule.num_steps, -(-schedule.num_steps // measuring.eval_every)
    saves = steps // measuring.save_latest_every
    validation, training = measuring.validation_patches, measuring.training_patches
    our_schedule = Schedule(steps, judgements, 2 * validation, saves)
    plain_schedule = Schedule(steps, judgements, validation + training, saves)
    report: dict[str, Any] = {
        "precision": precision,
        "ours": ours.report(images, our_schedule),
        "plain": plain.report(images, plain_schedule) if measuring.plain else None,
        "phases": shares(phases),
        "loading_patches_per_second": loading,
        "growth": growth,
    }
    iterations = range(measuring.warmup_steps + 1, total + 1)
    views = [draw_size(*sizes, torch_generator(seed, i, "size")) for i in iterations]
    patch = max(pools["labeled"][0]["image"].shape[-2:])
    counts = {view: step_flops(spec, schedule.batch_size, view, patch) for view in set(views)}
    peak = measuring.peak_tflops or peak_tflops_of(device, precision)
    seconds = report["ours"]["mean_step_seconds"]["median"]
    report["arithmetic"] = utilisation(mean(counts[view] for view in views), seconds, peak)
    return report


def _reread(pool: PatchDataset, which: np.ndarray, cached: bool = False) -> PatchDataset:
    """Other patches, read as those of a pool are."""
    return PatchDataset(
        pool.index,
        which,
        pool.mask_reader,
        input_size=pool.input_size,
        skip_bad_files=pool.skip_bad_files,
        cache=pool.cache if cached else None,
    )


def _train_plainly(loop: PlainLoop, stream: TrainingStream, steps: int) -> list[float]:
    """Returns the seconds of every step; each ends with numbers that the host waits for."""
    times = [time.perf_counter()]
    for _ in loop.train(stream, steps):
        times.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(times)]


def _settings(options: Options, smallest: int) -> list[tuple[int, int]]:
    """Batch sizes at the smallest view, and view sizes at the run's batch size, none twice."""
    side = -(-smallest // 16) * 16
    batches = [(batch_size, side) for batch_size in options.measuring.batch_sizes]
    views = [(options.schedule.batch_size, size) for size in options.measuring.image_sizes]
    return list(dict.fromkeys([*batches, *views]))


def _say(text: str) -> None:
    logging.getLogger(__name__).info("%s", text)


if __name__ == "__main__":
    sys.exit(run_script(main, None))
