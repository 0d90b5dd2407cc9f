"""What a comparison would still run, and for how long: from finished cells, or a few real steps."""

from __future__ import annotations

import heapq
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.comparison.cell_run import run_process
from experiments.comparison.cells import last_error, read_history, read_result
from experiments.comparison.flag_groups import by_flag
from experiments.comparison.setting import Setting
from experiments.comparison.standing import Standing
from experiments.comparison.study import Cell
from experiments.tables import text_table
from experiments.training import RecipeOptions

__all__ = ["Pace", "pace_of_cells", "pace_of_steps", "plan_table", "side_by_side"]

_STEPS = 6  # that are timed, after as many that are not


@dataclass(frozen=True)
class Pace:
    """What a recipe's cell costs.

    Attributes:
        start: seconds to the first iteration, and after the last one.
        per_iteration: seconds.
        per_evaluation: seconds; 0 where they are within ``per_iteration``.
        source: from what it is known.
    """

    start: float
    per_iteration: float
    per_evaluation: float
    source: str

    def minutes(self, iterations: int, every: int) -> float:
        """Returns the minutes of iterations, with an evaluation every so many of them."""
        if iterations <= 0:
            return 0.0
        evaluations = math.ceil(iterations / every)
        seconds = iterations * self.per_iteration + evaluations * self.per_evaluation
        return (self.start + seconds) / 60


def pace_of_cells(
    setting: Setting, standings: Mapping[Cell, Standing], recipe: str, every: int
) -> Pace | None:
    """Returns a recipe's pace from what ran of it; None where less than an evaluation did.

    Args:
        setting: where the cells are.
        standings: how far they are.
        recipe: its name.
        every: iterations between evaluations.
    """
    own = {cell: stand for cell, stand in standings.items() if cell.recipe.name == recipe}
    done = {cell: stand for cell, stand in own.items() if stand.state == "done"}
    begun = {cell: stand for cell, stand in own.items() if stand.iteration >= every}
    used = done or begun
    if not used:
        return None
    paces = [stand.seconds / stand.iteration for stand in used.values()]
    judged = [60 * read_result(setting.folder(cell)).get("judging_minutes", 0.0) for cell in done]
    kind = "finished" if done else "begun"
    return Pace(mean(judged or [0.0]), mean(paces), 0.0, f"{len(used)} {kind}")


def pace_of_steps(setting: Setting, cell: Cell, options: RecipeOptions) -> Pace:
    """Times a few real steps of a recipe, with all that starts later in a run already on.

    The judgement of pseudo-labels is not timed.

    Args:
        setting: where the data are.
        cell: one of the recipe's.
        options: the recipe's.

    Raises:
        ValueError: the script failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory(prefix="compare_plan_") as name:
        folder = Path(name) / "run"
        log = Path(name) / "log.txt"
        flags = _short(setting.flags(cell, folder), options)
        started = time.time()
        status = run_process(cell.recipe.script, flags, log).wait()
        ended = time.time()
        if status != 0:
            raise ValueError(f"timing {cell.recipe.name!r} failed: {last_error(log)}")
        ready = (folder / "config.json").stat().st_mtime
        trained = (folder / "final_model.pth").stat().st_mtime
        rows = [row for row in read_history(folder) if row.get("seconds_per_iteration")]
        cold, warm = (float(row["seconds_per_iteration"]) for row in rows)
    evaluation = max(0.0, trained - ready - _STEPS * (cold + warm))
    return Pace((ready - started) + (ended - trained), warm, evaluation, f"{_STEPS} steps")


def _short(tokens: Sequence[str], options: RecipeOptions) -> list[str]:
    flags = by_flag(tokens, "the command line")
    steps = 2 * _STEPS
    short = {"num-steps": steps, "eval-every": steps, "log-every": _STEPS, "warmup-iters": 1}
    for name in _names(options):
        if name.endswith("start-iter"):
            short[name] = 1
    flags |= {name: (f"--{name}", str(value)) for name, value in short.items()}
    return [token for group in flags.values() for token in group]


def _names(options: Any) -> list[str]:
    groups = [getattr(options, field.name) for field in fields(options)]
    inner = [field.name for group in groups if is_dataclass(group) for field in fields(group)]
    return [name.replace("_", "-") for name in inner]


def side_by_side(minutes: Sequence[float], jobs: int) -> float:
    """Returns the minutes of cells that start in this order, ``jobs`` at a time.

    Side by side every one is taken to be as fast as alone.
    """
    ends = [0.0] * jobs
    for duration in minutes:
        heapq.heappush(ends, heapq.heappop(ends) + duration)
    return max(ends)


def plan_table(
    standings: Mapping[Cell, Standing],
    paces: Mapping[str, Pace],
    budgets: Mapping[str, tuple[int, int]],
    jobs: int,
) -> str:
    """Returns the cells in order, each with its state and the minutes that are left, and the sum.

    Args:
        standings: how far the cells are.
        paces: by recipe, of those that are not done.
        budgets: iterations of a cell, and iterations between evaluations, by recipe.
        jobs: cells side by side.
    """
    rows, left = [], []
    for cell, stand in standings.items():
        name = cell.recipe.name
        if stand.state in ("done", "busy"):
            rows.append([cell.name, _state(stand), "", ""])
            continue
        steps, every = budgets[name]
        left.append(paces[name].minutes(steps - stand.iteration, every))
        rows.append([cell.name, _state(stand), f"{left[-1]:.1f}", paces[name].source])
    total = side_by_side(left, jobs)
    return (
        f"{text_table(['cell', 'state', 'minutes left', 'known from'], rows)}\n\n"
        f"{len(left)} of {len(rows)} cells are left: about {_duration(total)} with --jobs {jobs}, "
        "if they run as fast side by side as alone"
    )


def _state(stand: Standing) -> str:
    if stand.state == "busy":
        return f"at iteration {stand.iteration}, process {stand.process} works on it"
    if stand.state == "begun":
        return "trained, to be judged" if stand.trained else f"at iteration {stand.iteration}"
    return stand.state


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"
