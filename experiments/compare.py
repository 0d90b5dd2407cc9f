"""Compares recipes over seeds and labelled lists: runs what is missing, then writes tables.

    python -m experiments.compare experiments/compare_dubai.json --data-root DATA \
--lists-folder LISTS --output RUNS --plan
    python -m experiments.compare experiments/compare_dubai.json --data-root DATA \
--lists-folder LISTS --output RUNS

Call it again at any time: finished cells are not run again, and a killed one goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import list2cmdline

import tyro

from experiments.comparison.budget import budget, check_equal_budgets
from experiments.comparison.cell_run import CellRun
from experiments.comparison.cells import Result, read_result
from experiments.comparison.figure import comparison_figure
from experiments.comparison.plan import Pace, pace_of_cells, pace_of_steps, plan_table
from experiments.comparison.runs import run_cells
from experiments.comparison.setting import Setting
from experiments.comparison.standing import Standing, stand
from experiments.comparison.study import Cell, Study
from experiments.comparison.study_file import read_study
from experiments.comparison.tables import cell_rows, markdown, summary_rows
from experiments.console import parse, run_script
from experiments.tables import write_csv
from experiments.training import RecipeOptions
from ignite_salak.files import write_whole
from ignite_salak.plots import save_png


@dataclass
class Options:
    """Compares recipes over seeds and labelled lists.

    --debug shows the traceback of an error.
    """

    study: tyro.conf.Positional[Path]
    """JSON file of recipes, lists and seeds, such as experiments/compare_dubai.json."""
    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    lists_folder: Path | None = None
    """Folder of the lists of source images; DATA_ROOT if not given."""
    output: Path = Path("comparison")
    """Folder of all runs, tables and the picture."""
    only: tuple[str, ...] = ()
    """Recipes to run or plan; all if not given. Tables show whatever is finished."""
    jobs: int = 1
    """Cells that run side by side."""
    threads: int = 1
    """CPU threads of every cell; results depend on it."""
    plan: bool = False
    """Only print what would run and for how long, from finished cells or a few timed steps."""
    tables_only: bool = False
    """Only write tables and picture of the finished cells."""
    overwrite: bool = False
    """Make cells anew whose flags, defaults, lists or threads have changed, instead of refusing."""


def main(arguments: Sequence[str]) -> None:
    """Compares, from options to tables.

    Raises:
        SystemExit: with status 1 after all, if a cell failed.
    """
    options = parse(Options, arguments)
    _check(options)
    study = read_study(options.study)
    lists_folder = options.lists_folder or options.data_root
    setting = Setting(study, options.data_root, lists_folder, options.output, options.threads)
    chosen = study.cells(options.only)
    standings = {
        cell: _stand(setting, cell, options.overwrite and cell in chosen) for cell in study.cells()
    }
    failures = []
    if not options.tables_only:
        recipes = {cell.recipe.name: study.options(cell.recipe) for cell in chosen}
        check_equal_budgets({name: budget(recipe) for name, recipe in recipes.items()})
        standings = {cell: standings[cell] for cell in chosen}
        if options.plan:
            print(_plan(setting, standings, recipes, options.jobs))
            return
        runs = _runs(setting, standings, recipes)
        run_cells(runs, options.jobs)
        failures = [f"{run.cell.name}: {run.failure}" for run in runs if run.failure is not None]
    command = list2cmdline(["python", "-m", "experiments.compare", *arguments])
    _write_tables(setting, command)
    if failures:
        print("\n".join([f"{len(failures)} cells failed:", *failures]), file=sys.stderr)
        raise SystemExit(1)


def _check(options: Options) -> None:
    for flag, value in (("--jobs", options.jobs), ("--threads", options.threads)):
        if value < 1:
            raise ValueError(f"{flag} {value} is not at least 1")
    if options.plan and options.tables_only:
        raise ValueError("--plan and --tables-only: give one of the two")
    if not options.data_root.is_dir():
        raise FileNotFoundError(f"--data-root {options.data_root} is not a folder")


def _stand(setting: Setting, cell: Cell, overwrite: bool) -> Standing:
    identity = setting.identity(cell)
    try:
        now = partial(setting.study.options, cell.recipe)
        return stand(setting.folder(cell), identity, cell.name, now)
    except ValueError:
        if not overwrite:
            raise
        return Standing("open")


def _plan(
    setting: Setting,
    standings: Mapping[Cell, Standing],
    recipes: Mapping[str, RecipeOptions],
    jobs: int,
) -> str:
    budgets = {name: (o.schedule.num_steps, o.run.eval_every) for name, o in recipes.items()}
    paces: dict[str, Pace] = {}
    for cell, standing in standings.items():
        name = cell.recipe.name
        if standing.state in ("done", "busy") or name in paces:
            continue
        pace = pace_of_cells(setting, standings, name, budgets[name][1])
        if pace is None:
            print(f"timing a few steps of {name}", file=sys.stderr)
        paces[name] = pace or pace_of_steps(setting, cell, recipes[name])
    return plan_table(standings, paces, budgets, jobs)


def _runs(
    setting: Setting, standings: Mapping[Cell, Standing], recipes: Mapping[str, RecipeOptions]
) -> list[CellRun]:
    """The cells to run; says which are left to others."""
    done = [cell for cell, standing in standings.items() if standing.state == "done"]
    print(f"{len(done)} of {len(standings)} cells are finished already")
    for cell, standing in standings.items():
        if standing.state == "busy":
            print(f"{cell.name}: process {standing.process} works on it, left alone")
    return [
        CellRun(setting, cell, recipes[cell.recipe.name], standing)
        for cell, standing in standings.items()
        if standing.state in ("begun", "open")
    ]


def _write_tables(setting: Setting, command: str) -> None:
    """Writes and prints what the finished cells say."""
    study, folder = setting.study, setting.output
    results = _results(setting)
    if not results:
        print("no cell is finished: there is nothing to write a table of")
        return
    page = markdown(study, study.cells(), results, command)
    write_whole(folder / "comparison.md", lambda file: file.write(page.encode("utf-8")))
    write_csv(folder / "comparison.csv", summary_rows(study, results))
    write_csv(folder / "cells.csv", cell_rows(results))
    save_png(comparison_figure(study, results), folder / "comparison.png")
    print(f"\n{page}\n{folder} holds: comparison.md, comparison.csv, cells.csv, comparison.png")


def _results(setting: Setting) -> list[Result]:
    study: Study = setting.study
    found = {
        cell.name: read_result(setting.folder(cell))
        for cell in study.cells()
        if _stand(setting, cell, False).state == "done"
    }
    check_equal_budgets({name: result["budget"] for name, result in found.items()})
    return list(found.values())


if __name__ == "__main__":
    sys.exit(run_script(main, None))
