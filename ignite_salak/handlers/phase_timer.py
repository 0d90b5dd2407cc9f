"""Where the time of an iteration goes."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from ignite.engine import Engine, Events

from ignite_salak.events import TrainingEvents

__all__ = ["PhaseTimer"]

_Mark = float | torch.cuda.Event

_ENDS_WITH_ITERATION = f"handlers/{Events.ITERATION_COMPLETED.value}"
_PHASE_BEFORE = {
    Events.GET_BATCH_STARTED: "engine",
    Events.GET_BATCH_COMPLETED: "data",
    Events.ITERATION_STARTED: "engine",
    TrainingEvents.PSEUDO_LABELED: "pseudo_labels",
    TrainingEvents.VIEWS_READY: "augmentation",
    TrainingEvents.LOSS_COMPUTED: "forward",
    TrainingEvents.BACKWARD_COMPLETED: "backward",
    TrainingEvents.OPTIMIZER_STEPPED: "optimizer",
    Events.ITERATION_COMPLETED: "engine",
    TrainingEvents.EVALUATION_STARTED: _ENDS_WITH_ITERATION,
    TrainingEvents.EVALUATED: "evaluation",
}


class PhaseTimer:
    """Splits every iteration into phases, without a gap, by marks in time at its events.

    Every event has two marks, before and behind all other handlers, so that what handlers take is
    told from what the step takes. The phases are "data" (waiting for a batch), "pseudo_labels",
    "augmentation" (with the copy to the device), "forward" (with the losses), "backward",
    "optimizer", "evaluation", "engine" (ignite itself, reseeding, the end of the step), and
    "handlers/<event>" of every event, such as "handlers/optimizer_stepped". Where a batch is
    accumulated, the backward passes of all parts but the last count as "forward".

    On CUDA the marks are events on the device's current stream: nothing waits for them before
    ``iterations`` is called, and a phase is the time that the GPU was at it.

    Args:
        device: where the step computes.

    Example:
        >>> trainer, timer = create_trainer(step), PhaseTimer()
        >>> timer.attach_first(trainer)
        >>> EMAUpdater(model).attach(trainer)
        >>> timer.attach_last(trainer)
        >>> trainer.run(stream, max_epochs=1, epoch_length=100)
        >>> statistics.median(phases["forward"] for phases in timer.iterations())
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._finished: list[list[tuple[str, _Mark]]] = []
        self._marks: list[tuple[str, _Mark]] = []

    def attach_first(self, engine: Engine) -> None:
        """Marks where handlers begin; call it before any other handler is attached."""
        engine.add_event_handler(Events.STARTED, self._start)
        for event, phase in _PHASE_BEFORE.items():
            engine.add_event_handler(event, self._mark, phase)

    def attach_last(self, engine: Engine) -> None:
        """Marks where handlers end; call it behind all other handlers."""
        for event in _PHASE_BEFORE:
            engine.add_event_handler(event, self._mark, f"handlers/{event.value}")
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._finish)

    def iterations(self) -> list[dict[str, float]]:
        """Returns the seconds of every phase of each finished iteration, all runs in order.

        An iteration lasts from the end of the one before to its own; the first from ``STARTED``.
        On CUDA the host waits here until the device is done.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return [_sums(marks) for marks in self._finished]

    def _start(self) -> None:
        self._marks = [("", self._now())]

    def _mark(self, phase: str) -> None:
        self._marks.append((phase, self._now()))

    def _finish(self) -> None:
        self._finished.append(self._marks)
        self._marks = [("", self._marks[-1][1])]

    def _now(self) -> _Mark:
        if self.device.type != "cuda":
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def _sums(marks: list[tuple[str, _Mark]]) -> dict[str, float]:
    phases: dict[str, float] = {}
    for (_, before), (phase, after) in pairwise(marks):
        phases[phase] = phases.get(phase, 0.0) + _seconds(before, after)
    return phases


def _seconds(before: Any, after: Any) -> float:
    if isinstance(before, float):
        return after - before
    return before.elapsed_time(after) / 1000.0  # of milliseconds
