"""Numbers of the benchmark: spreads, memory, floating-point operations, hours of a schedule."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from ignite_salak.data.loaders import TrainingStream
from ignite_salak.models.model_file import ModelSpec

__all__ = [
    "Contender",
    "PeakMemory",
    "Schedule",
    "hardware",
    "loading_rate",
    "peak_tflops_of",
    "seconds_of",
    "shares",
    "spread",
    "step_flops",
    "utilisation",
    "whole",
]

_PAUSE = 0.02  # seconds between two looks at the memory of the process
_H200_BF16_TFLOPS = 989.0  # dense; NVIDIA H200 data sheet, which gives 1,979 with sparsity
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


class PeakMemory:
    """Measures the most memory that is held within the context.

    On CUDA: what tensors held, as the allocator counted it. Else: resident memory of this process,
    without its workers, looked at fifty times a second; what was freed before and never given back
    to the system counts as held before.

    Args:
        device: where the work is done.

    Attributes:
        before: bytes held at the start; the rest of the peak is what the work took.
        peak: most bytes held.
        reserved: most bytes that the CUDA allocator took from the device; None elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0
        self.peak = 0
        self.reserved: int | None = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.before = self.peak = _resident()
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
            self.reserved = torch.cuda.max_memory_reserved(self.device)
        else:
            self._stop.set()
            self._watcher.join()

    def in_gib(self) -> dict[str, float | None]:
        """Returns "peak", "before", "own" (their difference) and "reserved" in GiB."""
        known = {"peak": self.peak, "before": self.before, "own": self.peak - self.before}
        reserved = None if self.reserved is None else self.reserved / 2**30
        return {**{name: size / 2**30 for name, size in known.items()}, "reserved": reserved}

    def _watch(self) -> None:
        while not self._stop.wait(_PAUSE):
            self.peak = max(self.peak, _resident())


def _resident() -> int:
    return psutil.Process().memory_info().rss


def step_flops(spec: ModelSpec, batch_size: int, view: int, patch: int) -> int:
    """Counts the floating-point operations of the network in one step of V3.

    Matrix products and convolutions, a multiplication and an addition being two; nothing is
    computed. The views of both pools go forward and backward, the plain unlabelled patches forward.

    Args:
        spec: the architecture.
        batch_size: patches of either pool.
        view: side of the views in pixels.
        patch: side of the patches in pixels.
    """
    with torch.device("meta"):
        model = spec.build()
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            model.eval()(torch.empty(batch_size, 3, patch, patch, device="meta"))
        model.train()(torch.empty(2 * batch_size, 3, view, view, device="meta")).sum().backward()
    return counter.get_total_flops()


def utilisation(flops: float, seconds: float, peak_tflops: float | None) -> dict[str, Any]:
    """Compares what is computed with what the device could compute.

    Args:
        flops: operations of the network in a step.
        seconds: of a step.
        peak_tflops: of the device, None if unknown.

    Returns:
        "tflop_per_step", "tflops" (a second), "peak_tflops", and their quotient "utilisation", the
        model FLOP utilisation of Chowdhery et al. 2022 (arXiv:2204.02311); None if unknown.
    """
    done = flops / seconds / 1e12
    return {
        "tflop_per_step": flops / 1e12,
        "tflops": done,
        "peak_tflops": peak_tflops,
        "utilisation": None if peak_tflops is None else done / peak_tflops,
    }


def peak_tflops_of(device: torch.device, precision: str) -> float | None:
    """Returns the arithmetic peak of an H200 in bf16, dense, in TFLOPS; None for all others."""
    known = device.type == "cuda" and "H200" in torch.cuda.get_device_name(device)
    return _H200_BF16_TFLOPS if known and precision == "bf16" else None


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
    """Returns the memory in GiB and torch's threads; the rest is in ``console.surroundings``."""
    return {
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
    }
