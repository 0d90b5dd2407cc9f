"""Turns the step's tensors into numbers, once every N iterations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor

from ignite_salak.events import TrainingEvents

__all__ = ["TrainingLog"]


class TrainingLog:
    """Averages the step's scalars and fires ``TrainingEvents.LOGGED``.

    0-d tensors are averaged over the iterations since the last time, on their device; that is the
    only point where the host waits for them. Plain numbers are taken as they are. The result
    replaces ``engine.state.metrics``, together with "seconds_per_iteration" (evaluations left out),
    "images_per_second" where batches are mappings of pools that hold an "image" [B, ...], and, on
    CUDA, "gpu_memory_gib" (the peak that tensors held since the last time, evaluations included).
    Attach it behind the handlers that add to the step's output.

    Args:
        every: iterations between two logs; the last iteration of the run logs too.
        device: where the step computes.

    Raises:
        ValueError: ``every`` is not positive.
    """

    def __init__(self, every: int, device: torch.device | str = "cpu") -> None:
        if every < 1:
            raise ValueError(f"--log-every {every} is not at least 1")
        self.every = every
        self.device = torch.device(device)
        self._sums: dict[tuple[str, ...], tuple[Tensor, int]] = {}
        self._iterations = 0
        self._images = 0
        self._started = 0.0
        self._paused = 0.0

    def attach(self, engine: Engine) -> None:
        """Collects after every iteration."""
        engine.add_event_handler(Events.STARTED, self._restart)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(TrainingEvents.EVALUATION_STARTED, self._pause)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._resume)

    def collect(self, engine: Engine) -> None:
        """Adds the current iteration and logs where it is time."""
        self._add(engine.state.output)
        self._images += _count_images(engine.state.batch)
        iteration = engine.state.iteration
        if iteration % self.every == 0 or iteration == engine.state.epoch_length:
            numbers = {k: v for k, v in engine.state.output.items() if isinstance(v, int | float)}
            engine.state.metrics = {
                **self._means(),
                **numbers,
                **self._speed(),
                **self._memory(),
            }
            engine.fire_event(TrainingEvents.LOGGED)
            self._restart()

    def _add(self, output: dict[str, Tensor | float]) -> None:
        scalars = {k: v for k, v in output.items() if isinstance(v, Tensor) and v.ndim == 0}
        names = tuple(scalars)
        values = torch.stack([value.float() for value in scalars.values()])
        total, count = self._sums.get(names, (0, 0))
        self._sums[names] = (total + values, count + 1)
        self._iterations += 1

    def _means(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, (total, count) in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                totals[name] = totals.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + count
        return {name: value / counts[name] for name, value in totals.items()}

    def _speed(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self._started
        speed = {"seconds_per_iteration": elapsed / max(1, self._iterations)}
        if self._images and elapsed > 0:
            speed["images_per_second"] = self._images / elapsed
        return speed

    def _memory(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        return {"gpu_memory_gib": torch.cuda.max_memory_allocated(self.device) / 2**30}

    def _pause(self) -> None:
        self._paused = time.perf_counter()

    def _resume(self) -> None:
        self._started += time.perf_counter() - self._paused

    def _restart(self) -> None:
        self._sums = {}
        self._iterations = 0
        self._images = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._started = time.perf_counter()


def _count_images(batch: Any) -> int:
    pools = batch.values() if isinstance(batch, Mapping) else ()
    return sum(
        len(pool["image"]) for pool in pools if isinstance(pool, Mapping) and "image" in pool
    )
