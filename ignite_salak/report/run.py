"""What the folder of a run says: config.json, history.csv, summary.json and the panels."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ignite_salak.classes import ClassMap

__all__ = ["Judged", "Run", "Series", "Summary", "Warned", "read_run"]

_PANEL = re.compile(r"(validation|unlabeled)_(\d+)\.png")
_NONE = np.zeros(0)


@dataclass(frozen=True)
class Series:
    """The numbers of one column of history.csv, where there are some.

    Attributes:
        iterations: when, int64 [N], rising.
        values: float64 [N]; NaN where the file says so.
    """

    iterations: np.ndarray = field(default_factory=lambda: _NONE.astype(np.int64))
    values: np.ndarray = field(default_factory=lambda: _NONE)

    def at(self, iteration: int | None) -> float | None:
        """Returns the value of an iteration, or None."""
        found = self.values[self.iterations == iteration]
        return float(found[-1]) if len(found) else None

    def until(self, iteration: int | None) -> float | None:
        """Returns the latest value at or before an iteration, or None."""
        if iteration is None:
            return None
        found = self.values[self.iterations <= iteration]
        return float(found[-1]) if len(found) else None

    def best(self, until: int | None = None) -> int | None:
        """Returns the iteration of the highest value, the first of equals; NaN is never it."""
        which = np.isfinite(self.values)
        if until is not None:
            which &= self.iterations <= until
        if not which.any():
            return None
        return int(self.iterations[which][np.argmax(self.values[which])])


@dataclass(frozen=True)
class Judged:
    """One evaluation of summary.json: pixel counts, int64 [C, C], rows are the truth."""

    iteration: int
    confusion: Tensor


@dataclass(frozen=True)
class Warned:
    """One warning of Health, and when it came."""

    iteration: int
    text: str


@dataclass(frozen=True)
class Summary:
    """summary.json, as ``handlers.RunSummary`` writes it."""

    state: str
    iteration: int
    best: Judged | None
    last: Judged | None
    warnings: tuple[Warned, ...]


@dataclass(frozen=True)
class Run:
    """A run, as its folder tells it.

    Attributes:
        folder: the folder.
        name: what the run is called on a page.
        config: config.json.
        classes: its class list.
        history: the columns of history.csv by name; empty columns are left out.
        iteration: how far it came.
        summary: summary.json, or None where there is none.
        panels: PNG files, by kind ("validation", "unlabeled") and iteration.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    classes: ClassMap
    history: dict[str, Series]
    iteration: int
    summary: Summary | None = None
    panels: dict[str, dict[int, Path]] = field(default_factory=dict)

    def series(self, name: str) -> Series:
        """Returns a column of history.csv, an empty one where there is none."""
        return self.history.get(name, Series())

    def option(self, group: str, name: str) -> Any:
        """Returns an option, or None where it is not known."""
        values = self.config["options"].get(group)
        return values.get(name) if isinstance(values, dict) else None

    def fact(self, name: str) -> dict[str, Any]:
        """Returns another mapping of config.json, an empty one where there is none."""
        values = self.config.get(name)
        return values if isinstance(values, dict) else {}

    @property
    def total(self) -> int | None:
        """Iterations of the whole run, or None where that is not known."""
        steps = self.option("schedule", "num_steps")
        return steps if isinstance(steps, int) else None

    @property
    def self_training(self) -> bool:
        """Whether the options let unlabelled patches take part."""
        return self.option("self_training", "st_loss_weight") != 0

    @property
    def best(self) -> int | None:
        """Iteration of the best evaluation: of the delivered model."""
        scores = self.series("validation/mIoU")
        found = scores.best()
        if found is not None and self.summary is not None and self.summary.best is not None:
            # history.csv is rounded: of equals there, the summary knows which one was better.
            known = self.summary.best.iteration
            if scores.at(known) == scores.at(found):
                return known
        return found

    @property
    def state(self) -> str:
        """One of summary.json's states; "unknown" without it, unless the history is complete."""
        if self.summary is not None:
            return self.summary.state
        return "completed" if self.iteration == self.total else "unknown"

    def confusion(self) -> Judged | None:
        """Returns the confusion matrix of the best evaluation, or else of the last, or None."""
        if self.summary is None:
            return None
        best = self.summary.best
        return best if best is not None and best.iteration == self.best else self.summary.last


def read_run(folder: Path) -> Run:
    """Reads the folder of a run.

    Raises:
        FileNotFoundError: config.json or history.csv is missing.
        ValueError: a file is damaged.
    """
    config_file, history_file = folder / "config.json", folder / "history.csv"
    config = _read_json(config_file, "a run writes it when it starts")
    try:
        classes = ClassMap.from_dict(config["classes"])
        if not isinstance(config["options"], dict):
            raise TypeError("its options are no mapping")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(config_file, error, "is it the one of a training run?") from error
    iterations, history = _read_history(history_file)
    summary = _read_summary(folder / "summary.json", classes.num_classes)
    return Run(
        folder,
        folder.resolve().name,
        config,
        classes,
        history,
        max(iterations[-1], summary.iteration if summary else 0),
        summary,
        _find_panels(folder / "panels"),
    )


def _damaged(path: Path, error: Exception | str, way_out: str) -> ValueError:
    reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else error
    return ValueError(f"{path} cannot be used: {reason}; {way_out}")


def _read_json(path: Path, origin: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: {path.parent} is not the folder of a run ({origin})"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error, "restore it from a copy") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no mapping", "restore it from a copy")
    return content


def _read_history(path: Path) -> tuple[list[int], dict[str, Series]]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: the run has logged nothing yet (--log-every)"
        )
    way_out = "restore it from a copy, or delete the damaged rows"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (ValueError, csv.Error) as error:
        raise _damaged(path, error, way_out) from error
    if not rows:
        raise _damaged(path, "it has no row", way_out)
    cells: dict[str, list[tuple[int, float]]] = {}
    iterations = []
    for number, row in enumerate(rows, start=1):
        try:
            iterations.append(int(row["iteration"]))
            for name, text in row.items():
                if name != "iteration" and text != "":
                    cells.setdefault(name, []).append((iterations[-1], float(text)))
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"row {number}: {error}", way_out) from error
        if iterations[-1] <= (iterations[-2] if number > 1 else 0):
            raise _damaged(path, f"row {number}: the iteration does not rise", way_out)
    return iterations, {name: _series(pairs) for name, pairs in cells.items()}


def _series(pairs: list[tuple[int, float]]) -> Series:
    iterations, values = zip(*pairs, strict=True)
    return Series(np.asarray(iterations, dtype=np.int64), np.asarray(values, dtype=np.float64))


def _read_summary(path: Path, num_classes: int) -> Summary | None:
    if not path.is_file():
        return None
    content = _read_json(path, "")
    try:
        return Summary(
            str(content["state"]),
            int(content["iteration"]),
            _judged(content["best"], num_classes),
            _judged(content["last"], num_classes),
            tuple(Warned(int(w["iteration"]), str(w["text"])) for w in content["warnings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error, "delete it to go without") from error


def _judged(values: dict[str, Any] | None, num_classes: int) -> Judged | None:
    if values is None:
        return None
    confusion = torch.tensor(values["confusion"], dtype=torch.long)
    if confusion.shape != (num_classes, num_classes):
        raise ValueError(
            f"a confusion matrix of shape {list(confusion.shape)} for {num_classes} classes"
        )
    return Judged(int(values["iteration"]), confusion)


def _find_panels(folder: Path) -> dict[str, dict[int, Path]]:
    panels: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("*.png")):
        named = _PANEL.fullmatch(path.name)
        if named:
            panels.setdefault(named[1], {})[int(named[2])] = path
    return panels
