"""summary.json: how a run stands or ended, the confusion matrices, and what Health warned of."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from ignite_salak.events import TrainingEvents
from ignite_salak.files import write_json
from ignite_salak.handlers.evaluation import EvaluationResult
from ignite_salak.handlers.health import Health

__all__ = ["RunSummary"]

_LOGGER = logging.getLogger(__name__)


class RunSummary:
    """Writes what a report needs beside config.json and history.csv, whole, at every evaluation.

    The file holds "state" ("running", "completed", "stopped early", "interrupted" or "failed"),
    "iteration", "total", "classes", "best" and "last" (each with "iteration", the validation mIoU
    as "score" and "confusion", or null), and "warnings" (each with "sign", "iteration" and "text").
    After a kill it is that of the last evaluation and says "running".

    Attach it behind ``BestModelSaver`` and ``Health``, and run the trainer inside ``with summary:``
    so that an exception is told, too. A resumed run keeps what the earlier one found up to the
    iteration from which it continues. A file that cannot be written costs a warning. In a
    distributed run only the first process writes.

    Args:
        path: the file, such as ``summary.json``; its folder must exist when the run starts.
        health: whose warnings are kept; None for none.
        names: class names, in the order of the confusion matrices.
        total: iterations of the whole run.

    Attributes:
        content: what the file says.

    Example:
        >>> summary = RunSummary(folder / "summary.json", health, classes.names, total=50000)
        >>> summary.attach(trainer)
        >>> with reporting(folder), summary:
        ...     trainer.run(stream, max_epochs=1, epoch_length=50000)
    """

    def __init__(
        self, path: Path, health: Health | None, names: Sequence[str], *, total: int
    ) -> None:
        self.path = path
        self.health = health
        self.content: dict[str, Any] = {
            "state": "running",
            "iteration": 0,
            "total": total,
            "classes": list(names),
            "best": None,
            "last": None,
            "warnings": [],
        }

    def attach(self, engine: Engine) -> None:
        """Reads an earlier file when the run starts and writes as it goes."""
        engine.add_event_handler(Events.STARTED, self._continue)
        engine.add_event_handler(TrainingEvents.LOGGED, self._note)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._evaluate)
        # Early stopping fires both, in this order; a signal only the first.
        engine.add_event_handler(Events.TERMINATE, self._end, "interrupted")
        engine.add_event_handler(Events.COMPLETED, self._end, "completed")

    def __enter__(self) -> RunSummary:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.content["state"] = "interrupted" if kind is KeyboardInterrupt else "failed"
            self._write()

    def _continue(self, engine: Engine) -> None:
        iteration = engine.state.iteration
        self.content["iteration"] = iteration
        if iteration and self.path.is_file():
            self._take_over(iteration)
        self._write()

    def _take_over(self, iteration: int) -> None:
        try:
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
            judged = {name: earlier[name] for name in ("best", "last") if earlier[name] is not None}
            kept: dict[str, Any] = {
                name: entry for name, entry in judged.items() if entry["iteration"] <= iteration
            }
            warned = [entry for entry in earlier["warnings"] if entry["iteration"] <= iteration]
            self.content |= {**kept, "warnings": warned}
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOGGER.warning("%s is damaged (%s): it is begun anew", self.path, error)

    def _note(self, engine: Engine) -> None:
        self.content["iteration"] = engine.state.iteration
        known = {entry["sign"] for entry in self.content["warnings"]}
        warnings = {} if self.health is None else self.health.warnings
        self.content["warnings"] += [
            {"sign": sign, "iteration": engine.state.iteration, "text": text}
            for sign, text in warnings.items()
            if sign not in known
        ]

    def _evaluate(self, engine: Engine) -> None:
        self._note(engine)
        result: EvaluationResult = engine.state.evaluation
        judged = {
            "iteration": result.iteration,
            "score": _finite(result.validation["mIoU"]),
            "confusion": result.confusion.tolist(),
        }
        self.content["last"] = judged
        if result.best is not None and result.best.is_new:
            self.content["best"] = judged
        self._write()

    def _end(self, engine: Engine, state: str) -> None:
        self._note(engine)
        if state == "completed" and engine.state.iteration < self.content["total"]:
            state = "stopped early"
        self.content["state"] = state
        self._write()

    def _write(self) -> None:
        if idist.get_rank() != 0:
            return
        try:
            write_json(self.path, self.content)
        except OSError as error:
            _LOGGER.warning("%s; the run goes on", error)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
