"""Times of the benchmark: their spreads, the shares of phases, the hours of a schedule."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from experiments.peak_memory import PeakMemory
from ignite_salak.data.loaders import TrainingStream

__all__ = [
    "Contender",
    "Schedule",
    "hardware",
    "loading_rate",
    "seconds_of",
    "shares",
    "spread",
    "whole",
]

_PHASES = ("data", "pseudo_labels", "augmentation", "forward", "backward", "optimizer")
_LEARNING = ("handlers/backward_completed", "handlers/optimizer_stepped")


def seconds_of(work: Callable[[], Any]) -> float:
    """Returns the seconds that work takes; it must leave nothing to do on the device."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def loading_rate(stream: TrainingStream, count: int, *, ahead: int) -> float:
    """Returns the patches a second that are read where nobody trains.

    Args:
        stream: what reads them.
        count: batches that are timed, at least; ``ahead`` more.
        ahead: batches that workers may have read ahead, which are taken first.
    """
    batches = iter(stream)
    for _ in range(ahead + 1):
        next(batches)
    count += ahead
    seconds = seconds_of(lambda: [next(batches) for _ in range(count)])
    return count * stream.batch_size * len(stream.pools) / seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns "median", "lowest" and "highest" of one value per repetition."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def whole(phases: dict[str, float]) -> float:
    """Returns the seconds of an iteration."""
    return sum(phases.values())


def shares(iterations: Sequence[dict[str, float]]) -> dict[str, float]:
    """Sums phases of ``PhaseTimer`` into those of the report.

    Args:
        iterations: seconds of every phase of each iteration.

    Returns:
        Mean seconds an iteration: the phases of the step; "clipping and averaging", handlers that
        are part of the recipe (those of BACKWARD_COMPLETED and OPTIMIZER_STEPPED); "handlers",
        which only watch and log, with the learning rate; "engine".
    """
    means = {
        name: sum(phases.get(name, 0.0) for phases in iterations) / len(iterations)
        for name in sorted(set().union(*iterations))
    }
    handlers = {name: value for name, value in means.items() if name.startswith("handlers/")}
    learning = sum(handlers.pop(name, 0.0) for name in _LEARNING)
    return {
        **{name.replace("_", "-"): means.get(name, 0.0) for name in _PHASES},
        "clipping and averaging": learning,
        "handlers": sum(handlers.values()),
        "engine": means.get("engine", 0.0),
    }


@dataclass(frozen=True)
class Schedule:
    """A whole training, to be projected.

    Attributes:
        steps: iterations.
        evaluations: how many.
        patches: patches judged in each evaluation.
        saves: checkpoints written.
    """

    steps: int
    evaluations: int
    patches: int
    saves: int

    def hours(self, step: float, patch: float, save: float) -> dict[str, float]:
        """Projects what was measured.

        Args:
            step: seconds of a training step, the mean over the view sizes.
            patch: seconds of a patch in evaluation.
            save: seconds of a checkpoint.

        Returns:
            Hours of "training", "evaluation", "checkpoints" and "whole".
        """
        parts = {
            "training": self.steps * step / 3600,
            "evaluation": self.evaluations * self.patches * patch / 3600,
            "checkpoints": self.saves * save / 3600,
        }
        return {**parts, "whole": sum(parts.values())}


@dataclass
class Contender:
    """What was measured of one way to train, a value or a list for each repetition.

    Attributes:
        steps: seconds of every training step.
        evaluations: seconds of a patch in evaluation.
        saves: seconds of a checkpoint.
        memory: of building it and of the first round.
    """

    steps: list[list[float]] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    memory: PeakMemory | None = None

    def report(self, images: int, schedule: Schedule) -> dict[str, Any]:
        """Returns spreads over the repetitions and the projected hours, as plain values.

        Args:
            images: patches in a training step.
            schedule: what is projected, from the mean step, since its time depends on the size of
                the views.
        """
        medians = [statistics.median(seconds) for seconds in self.steps]
        means = [statistics.mean(seconds) for seconds in self.steps]
        projected = (
            statistics.median(seconds) for seconds in (means, self.evaluations, self.saves)
        )
        return {
            "step_seconds": spread(medians),
            "mean_step_seconds": spread(means),
            "iterations_per_second": spread([1 / seconds for seconds in medians]),
            "images_per_second": spread([images / seconds for seconds in medians]),
            "evaluated_per_second": spread([1 / seconds for seconds in self.evaluations]),
            "save_seconds": spread(self.saves),
            "memory_gib": None if self.memory is None else self.memory.in_gib(),
            "schedule_hours": schedule.hours(*projected),
        }


def hardware() -> dict[str, Any]:
    """Returns the memory in GiB and torch's threads; the rest is in ``machine.surroundings``."""
    return {
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
    }
