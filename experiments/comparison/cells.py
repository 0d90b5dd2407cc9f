"""The results of a comparison's cells as files."""

from __future__ import annotations

import csv
import datetime
import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.tables import plain
from ignite_salak.files import write_json
from ignite_salak.metrics import scores_from_confusion

__all__ = [
    "PROGRESS",
    "RESULT",
    "Result",
    "collect",
    "last_error",
    "number",
    "read_confusions",
    "read_history",
    "read_json",
    "read_pseudo_labels",
    "read_result",
]

Result = dict[str, Any]
"""What a finished cell's cell.json says."""

RESULT = "cell.json"
PROGRESS = "cell_progress.json"
_SCORES = ("mIoU", "mIoU_with_background", "accuracy")


def collect(
    folder: Path,
    *,
    recipe: str,
    listing: str,
    identity: Mapping[str, Any],
    budget: Mapping[str, Any],
    flags: Sequence[str],
    seconds: float,
    judgement: Mapping[str, Any],
) -> Result:
    """Reads what a trained cell's run and judgement left, and writes cell.json.

    Args:
        folder: of the cell.
        recipe: name of the recipe.
        listing: name of the list.
        identity: what the result depends on.
        budget: what is equal of all recipes.
        flags: the command line.
        seconds: training, over all calls.
        judgement: more entries of cell.json, see ``read_confusions`` and ``read_pseudo_labels``.
    """
    summary = read_json(folder / "summary.json") or {}
    config = read_json(folder / "config.json") or {}
    history = read_history(folder)
    names = summary["classes"]
    result: Result = {
        "recipe": recipe,
        "list": listing,
        "seed": identity["seed"],
        "identity": dict(identity),
        "budget": dict(budget),
        "flags": list(flags),
        "minutes": seconds / 60,
        "classes": names,
        "last": _judged(summary["last"], names),
        "best": _judged(summary["best"], names),
        "st_px": _last_of(history, "st_px"),
        "st_share": _last_of(history, "st_share"),
        "curve": [
            [int(row["iteration"]), float(row["validation/mIoU"])]
            for row in history
            if row.get("validation/mIoU")
        ],
        "confusions": None,
        "unlabeled": None,
        "pseudo_labels": None,
        "warnings": summary["warnings"],
        **judgement,
        "environment": config.get("environment", {}),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
    }
    result = plain(result)
    write_json(folder / RESULT, result)
    (folder / PROGRESS).unlink(missing_ok=True)
    return result


def read_confusions(folder: Path) -> dict[str, Any]:
    """Reads what ``evaluate`` found on the validation photos.

    Args:
        folder: its --output.

    Returns:
        Entry of cell.json: "confusions", the pixel counts of every photo, rows are the truth.
    """
    found = read_json(folder / "metrics.json") or {}
    return {"confusions": found["confusions"]}


def read_pseudo_labels(folder: Path) -> dict[str, Any]:
    """Reads what ``evaluate --pseudo-labels`` found on the unlabelled photos.

    Args:
        folder: its --output.

    Returns:
        Entries of cell.json: scores of the model, and quality of its pseudo-labels at the
        thresholds in force, of all classes together and of each.
    """
    found = read_json(folder / "metrics.json") or {}
    *classes, everything = found["pseudo_labels"]["judged"]
    fields = ("precision", "kept_share")
    quality: dict[str, Any] = {field: everything[field] for field in fields}
    quality["classes"] = {
        each["name"]: {field: each[field] for field in (*fields, "threshold")} for each in classes
    }
    return {
        "unlabeled": {"mIoU": found["scores"]["mIoU"], "patches": found["patches"]},
        "pseudo_labels": quality,
    }


def read_result(folder: Path) -> Result:
    """Reads cell.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    found = read_json(folder / RESULT)
    if found is None:
        raise ValueError(f"{folder / RESULT} does not exist")
    return found


def number(result: Mapping[str, Any], *keys: str) -> float:
    """Returns a number out of nested mappings; NaN where there is none."""
    value: Any = result
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return math.nan if value is None else float(value)


def read_history(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of a run's history.csv; none where there is no such file yet."""
    try:
        with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns what a file of a cell holds; None where it does not exist yet.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it") from error


def last_error(log: Path) -> str:
    """Returns the line of a log that says best why a run failed: an error's, or the last."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "there is no log"
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said[-50:] if line.startswith("error")]
    return (errors or said or ["it said nothing"])[-1]


def _judged(entry: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any] | None:
    if entry is None:
        return None
    scores = scores_from_confusion(torch.tensor(entry["confusion"]), names)
    of_all: dict[str, Any] = {name: scores[name] for name in _SCORES}
    per_class = {name: scores[f"IoU/{name}"] for name in names}
    return {"iteration": entry["iteration"], **of_all, "IoU": per_class}


def _last_of(history: Sequence[Mapping[str, str]], name: str) -> float | None:
    values = [row[name] for row in history if row.get(name)]
    return float(values[-1]) if values else None


def _commit() -> str | None:
    """The commit of this code, "-dirty" where files differ from it; None where git knows none."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
