"""How far the cells of a comparison are: open, begun, busy or done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from experiments.comparison.cells import PROGRESS, RESULT, read_history, read_json
from experiments.comparison.setting import differing
from experiments.config_file import comparable, to_dict
from experiments.training import RecipeOptions
from ignite_salak.files import write_json

__all__ = ["Standing", "stand", "write_progress"]

# Set for every cell, or files that count by what they hold.
_OF_THE_CELL = ("data-root", "class-mapping", "labeled-files", "val-files", "seed", "threads")


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
        found = read_json(folder / file)
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


def _differing_options(folder: Path, now: RecipeOptions) -> str:
    """Says in which options, defaults too, a cell's run differs; those that one lacks are left."""
    config = read_json(folder / "config.json")
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
    summary = read_json(folder / "summary.json") or {}
    return summary.get("state") in ("completed", "stopped early")


def _unnoticed_seconds(folder: Path, progress: Mapping[str, Any]) -> float:
    """How long a run was seen at work after the call that had started it was killed."""
    history = folder / "history.csv"
    if progress["process"] is None or not history.exists():
        return 0.0
    return max(0.0, history.stat().st_mtime - progress["noted"])


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
