"""The cells of a comparison as files: how far each one is, and what it found."""

from __future__ import annotations

import csv
import datetime
import json
import math
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from experiments.comparison.setting import differing
from experiments.options import comparable, to_dict
from experiments.tables import plain
from experiments.training import RecipeOptions
from ignite_salak.files import write_json
from ignite_salak.metrics import scores_from_confusion

__all__ = [
    "Result",
    "Standing",
    "collect",
    "last_error",
    "number",
    "read_history",
    "read_result",
    "stand",
    "write_progress",
]

Result = dict[str, Any]
"""What a finished cell's cell.json says."""

RESULT = "cell.json"
PROGRESS = "cell_progress.json"
# Set for every cell, or files that count by what they hold.
_OF_THE_CELL = ("data-root", "class-mapping", "labeled-files", "val-files", "seed", "threads")
_SCORES = ("mIoU", "mIoU_with_background", "accuracy")


@dataclass(frozen=True)
class Standing:
    """How far a cell is.

    Attributes:
        state: "done"; "busy", where a process of another call works on it; "begun"; or "open".
        iteration: the last one logged.
        seconds: training so far, over all calls.
        trained: whether only the judgement is missing.
        process: id of the process of a busy cell.
    """

    state: Literal["done", "busy", "begun", "open"]
    iteration: int = 0
    seconds: float = 0.0
    trained: bool = False
    process: int | None = None


def stand(
    folder: Path,
    identity: Mapping[str, Any],
    name: str,
    recipe: Callable[[], RecipeOptions] | None = None,
) -> Standing:
    """Looks how far a cell is.

    Args:
        folder: of the cell.
        identity: what its result depends on, see ``Setting.identity``.
        name: of the cell, for errors.
        recipe: returns the options that the recipe now has, defaults among them; asked where there
            is something to compare.

    Raises:
        ValueError: it was made or begun with another identity or other options, or its files are
            damaged.
    """
    for file in (RESULT, PROGRESS):
        found = _read_json(folder / file)
        if found is None:
            continue
        difference = differing(found.get("identity", {}), identity)
        if not difference and recipe is not None:
            difference = _differing_options(folder, recipe())
        if difference:
            raise ValueError(
                f"cell {name} was made with {difference}: give the study another --output, or make "
                f"the cell anew by --overwrite ({folder})"
            )
        if file == RESULT:
            return Standing("done", found["last"]["iteration"], 60 * found["minutes"], True)
        history = read_history(folder)
        iteration = int(history[-1]["iteration"]) if history else 0
        process = _alive(found["process"])
        state: Literal["busy", "begun"] = "begun" if process is None else "busy"
        seconds = found["seconds"] + _unnoticed_seconds(folder, found)
        return Standing(state, iteration, seconds, _is_trained(folder), process)
    return Standing("open")


def write_progress(
    folder: Path, identity: Mapping[str, Any], seconds: float, process: int | None
) -> None:
    """Notes how long a cell has been trained, and by which process.

    Args:
        folder: of the cell.
        identity: what its result depends on.
        seconds: training so far, over all calls.
        process: id of the process at work, None for none.
    """
    created = None if process is None else _created(process)
    content = {
        "identity": dict(identity),
        "seconds": seconds,
        "noted": time.time(),
        "process": None if created is None else {"id": process, "created": created},
    }
    write_json(folder / PROGRESS, content)


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
        judgement: more entries of cell.json, see ``read_judgement``.
    """
    summary = _read_json(folder / "summary.json") or {}
    config = _read_json(folder / "config.json") or {}
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


def read_judgement(folder: Path, seconds: float) -> dict[str, Any]:
    """Reads what ``evaluate --pseudo-labels`` found on the unlabelled photos.

    Args:
        folder: its --output.
        seconds: how long it took.

    Returns:
        Entries of cell.json: scores of the model, and quality of its pseudo-labels at the
        thresholds in force, of all classes together and of each.
    """
    found = _read_json(folder / "metrics.json") or {}
    *classes, everything = found["pseudo_labels"]["judged"]
    fields = ("precision", "kept_share")
    quality: dict[str, Any] = {field: everything[field] for field in fields}
    quality["classes"] = {
        each["name"]: {field: each[field] for field in (*fields, "threshold")} for each in classes
    }
    return {
        "unlabeled": {"mIoU": found["scores"]["mIoU"], "patches": found["patches"]},
        "pseudo_labels": quality,
        "judging_minutes": seconds / 60,
    }


def read_result(folder: Path) -> Result:
    """Reads cell.json.

    Raises:
        ValueError: it is missing or damaged.
    """
    found = _read_json(folder / RESULT)
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


def _differing_options(folder: Path, now: RecipeOptions) -> str:
    """Says in which options, defaults too, a cell's run differs; those that one lacks are left."""
    config = _read_json(folder / "config.json")
    if config is None:
        return ""
    made, wanted = comparable(config["options"]), comparable(to_dict(now))
    return "; ".join(
        f"--{name} {made[name]} instead of {value}"
        for name, value in wanted.items()
        if name in made and name not in _OF_THE_CELL and made[name] != value
    )


def _is_trained(folder: Path) -> bool:
    """Whether the run has come to its end; a run that begins anew removes the model first."""
    if not (folder / "final_model.pth").is_file():  # the last file that a run writes
        return False
    summary = _read_json(folder / "summary.json") or {}
    return summary.get("state") in ("completed", "stopped early")


def _unnoticed_seconds(folder: Path, progress: Mapping[str, Any]) -> float:
    """How long a run was seen at work after the call that had started it was killed."""
    history = folder / "history.csv"
    if progress["process"] is None or not history.exists():
        return 0.0
    return max(0.0, history.stat().st_mtime - progress["noted"])


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it") from error


def _created(process: int) -> float | None:
    try:
        return psutil.Process(process).create_time()
    except psutil.Error:
        return None


def _alive(process: Mapping[str, Any] | None) -> int | None:
    """The id of a noted process, if it still runs; another one may have got the number since."""
    if process is None or _created(process["id"]) != process["created"]:
        return None
    if psutil.Process(process["id"]).status() == psutil.STATUS_ZOMBIE:
        return None
    return process["id"]


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
