"""The tables of a page: key numbers, classes, options, surroundings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ignite_salak.classes import BACKGROUND
from ignite_salak.report.run import Run, Series

__all__ = [
    "ClassRow",
    "Setting",
    "class_rows",
    "differing_options",
    "duration",
    "environment_rows",
    "labelled_shares",
    "notices",
    "number",
    "other_numbers",
    "plain",
    "settings",
    "state_text",
    "step_time",
    "training_time",
]

_STATES = {
    "running": "did not end properly (killed?), or still runs",
    "unknown": "end not known (no summary.json)",
}
_HERE = ("checkpoint_dir", "restore_from", "overwrite")  # say where, not how


def number(value: float | None, digits: int = 3) -> str:
    """Shows a score; what is not there is a dash, NaN is "absent"."""
    if value is None:
        return "-"
    return "absent" if math.isnan(value) else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Shows a time in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def state_text(run: Run) -> str:
    """Says how a run ended."""
    return _STATES.get(run.state, run.state)


def step_time(run: Run) -> float | None:
    """Returns the median of the logged seconds per iteration."""
    values = run.series("seconds_per_iteration").values
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def training_time(run: Run) -> float | None:
    """Returns the seconds of all iterations together, evaluations left out."""
    speed = run.series("seconds_per_iteration")
    if not len(speed.values):
        return None
    return float(np.nansum(np.diff(speed.iterations, prepend=0) * speed.values))


@dataclass(frozen=True)
class ClassRow:
    """A class of one run: its scores at the best evaluation and what it was trained with."""

    name: str
    color: str
    background: bool
    iou: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    share: float | None
    weight: float | None
    threshold: float | None


def class_rows(run: Run) -> tuple[ClassRow, ...]:
    """Returns the classes of a run, in their order."""
    shares = labelled_shares(run)
    rows = []
    for index, (name, color) in enumerate(zip(run.classes.names, run.classes.colors, strict=True)):
        scores = {
            key: run.series(f"validation/{score}/{name}").at(run.best)
            for key, score in (
                ("iou", "IoU"),
                ("precision", "precision"),
                ("recall", "recall"),
                ("f1", "F1"),
            )
        }
        rows.append(
            ClassRow(
                name,
                "#{:02x}{:02x}{:02x}".format(*color),
                index == BACKGROUND,
                share=shares.get(name),
                weight=_float(run.fact("class_weights").get(name)),
                threshold=_float(run.fact("thresholds").get(name)),
                **scores,
            )
        )
    return tuple(rows)


def labelled_shares(run: Run) -> dict[str, float]:
    """Returns every class's share of the labelled pixels, out of the class weights.

    A weight is n / (k * count), see ``data.balance.balanced_weights``; 1 stands for no pixel.
    """
    weights = {name: _float(value) for name, value in run.fact("class_weights").items()}
    known = {name: value for name, value in weights.items() if value is not None and value > 0}
    present = sum(value != 1 for value in known.values())
    if not present:
        return {name: 1 / len(known) for name in known}
    return {name: 0.0 if value == 1 else 1 / (present * value) for name, value in known.items()}


@dataclass(frozen=True)
class Setting:
    """An option; ``default`` is None where it is not known."""

    flag: str
    value: str
    default: str | None = None

    @property
    def changed(self) -> bool:
        """Whether the value is known to differ from the default."""
        return self.default is not None and self.default != self.value


def settings(run: Run) -> dict[str, tuple[Setting, ...]]:
    """Returns the options by group; those changed from their default come first.

    Defaults are those under "defaults" in config.json; without them the order is that of the file.
    """
    defaults = run.fact("defaults")
    groups: dict[str, tuple[Setting, ...]] = {}
    for group, values in run.config["options"].items():
        if isinstance(values, dict):
            title, standard = group.replace("_", "-"), defaults.get(group)
        else:
            title, values, standard = "other", {group: values}, defaults
        known = standard if isinstance(standard, dict) else {}
        rows = [
            Setting(_flag(name), plain(value), plain(known[name]) if name in known else None)
            for name, value in values.items()
        ]
        groups[title] = groups.get(title, ()) + tuple(sorted(rows, key=lambda row: not row.changed))
    return groups


def plain(value: Any) -> str:
    """Shows an option's value."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(entry) for entry in value) or "none"
    return str(value)


def differing_options(runs: Sequence[Run]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Returns the options and surroundings in which runs differ: name and the value of each run."""
    tables = [{**_all_options(run), **dict(environment_rows(run))} for run in runs]
    rows = []
    for name in dict.fromkeys(key for table in tables for key in table):
        values = tuple(table.get(name, "-") for table in tables)
        if len(set(values)) > 1 and name not in map(_flag, _HERE) and name != "command":
            rows.append((name, values))
    return tuple(rows)


def _all_options(run: Run) -> dict[str, str]:
    return {row.flag: row.value for rows in settings(run).values() for row in rows}


def environment_rows(run: Run) -> tuple[tuple[str, str], ...]:
    """Returns what is known of the surroundings, the packages' versions among it."""
    rows = []
    for name, value in run.fact("environment").items():
        if name == "command" and isinstance(value, list):
            rows.append((name, " ".join(map(str, value))))
        elif isinstance(value, Mapping):
            rows += [(str(key), plain(entry)) for key, entry in value.items()]
        else:
            rows.append((name, plain(value)))
    return tuple(rows)


def other_numbers(run: Run) -> tuple[tuple[str, str, str], ...]:
    """Returns the columns of history.csv that no chart shows: name, value at best and last."""
    rows = []
    for name, series in run.history.items():
        if not _is_drawn(name):
            rows.append((name, _figure(series.until(run.best)), _figure(_last(series))))
    return tuple(rows)


def _is_drawn(name: str) -> bool:
    shown = {"loss", "ce", "dice", "focal", "st", "st_px", "st_share", "disagreement", "gap"}
    shown |= {"validation/mIoU", "training/mIoU", "seconds_per_iteration"}
    scores = ("IoU/", "precision/", "recall/", "F1/")
    prefixes = ("lr/", *(f"{pool}/{s}" for pool in ("validation", "training") for s in scores))
    return name in shown or name.startswith(prefixes)


def _last(series: Series) -> float | None:
    return float(series.values[-1]) if len(series.values) else None


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def notices(runs: Sequence[Run]) -> tuple[str, ...]:
    """Says what forbids or hampers comparing the scores of runs."""
    found = []
    if _differ(run.classes.names for run in runs):
        found.append("The class lists differ: a mean over other classes is another number.")
    sources = [run.fact("sources").get("validation") for run in runs]
    if not all(isinstance(photos, list) for photos in sources):
        found.append("Not every run says which photos it was validated on.")
    elif _differ(sorted(map(str, photos or ())) for photos in sources):
        found.append("The validation photos differ: the scores are not of the same test.")
    if _differ(run.option("data", "input_size") for run in runs):
        found.append("--input-size differs: the scores are of pictures of different sizes.")
    if _differ(run.iteration for run in runs):
        found.append("The runs have come to different iterations.")
    return tuple(found)


def _differ(values: Iterable[Any]) -> bool:
    first, *rest = values
    return any(value != first for value in rest)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
