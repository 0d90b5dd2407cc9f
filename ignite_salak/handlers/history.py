"""history.csv: every logged number and every score, a row per iteration."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ignite_salak.events import TrainingEvents
from ignite_salak.files import write_table
from ignite_salak.handlers.evaluation import EvaluationResult
from ignite_salak.ranks import is_first

__all__ = ["History"]


class History:
    """Writes what was logged and evaluated, whole, after each.

    Columns are "iteration", the logged names, and "validation/..." and "training/..." of the
    scores and "gap"; a row has what is known of its iteration. When a run is resumed, rows after
    the iteration it continues from are dropped. A file that a spreadsheet holds open on Windows is
    written the next time. Of several ranks, only the first writes.

    Args:
        path: the CSV file.

    Attributes:
        rows: one mapping per row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Reads earlier rows when the run starts and adds rows as it goes."""
        engine.add_event_handler(Events.STARTED, self._continue)
        engine.add_event_handler(TrainingEvents.LOGGED, self._log)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._evaluate)

    def _continue(self, engine: Engine) -> None:
        self.rows = []
        if engine.state.iteration and self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            self.rows = [row for row in rows if int(row["iteration"]) <= engine.state.iteration]

    def _log(self, engine: Engine) -> None:
        self._add(engine.state.iteration, engine.state.metrics)

    def _evaluate(self, engine: Engine) -> None:
        result: EvaluationResult = engine.state.evaluation
        scores: dict[str, Any] = {"gap": result.gap}
        for name, values in (("validation", result.validation), ("training", result.training)):
            scores |= {f"{name}/{key}": value for key, value in values.items()}
        self._add(result.iteration, scores)

    def _add(self, iteration: int, values: dict[str, Any]) -> None:
        if not self.rows or int(self.rows[-1]["iteration"]) != iteration:
            self.rows.append({"iteration": iteration})
        self.rows[-1] |= {
            name: f"{v:.6g}" if isinstance(v, float) else v for name, v in values.items()
        }
        if is_first():
            write_table(self.path, self.rows)
