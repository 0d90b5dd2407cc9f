"""A study as a JSON file: what it says, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.comparison.budget import EQUAL_FLAGS
from experiments.comparison.flag_groups import by_flag
from experiments.comparison.study import Study, StudyRecipe

__all__ = ["read_study"]

_NAME = re.compile(r"\w[\w.+-]*")
_KEYS = ("common", "recipes", "lists", "validation", "seeds", "baseline")
_MORE_KEYS = ("about", "upper_bound", "judge_pseudo_labels")
_RECIPE_KEYS = ("script", "flags", "seeds", "lists")

# What the comparison sets itself, for every cell.
_SET_HERE = (
    *("data-root", "labeled-files", "val-files", "val-split", "seed", "threads"),
    *("checkpoint-dir", "restore-from", "overwrite", "config", "demo"),
)


def read_study(path: Path) -> Study:
    """Reads a study.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no study; the message says where.
    """
    if not path.is_file():
        raise FileNotFoundError(f"the study {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_twins)
        return _study(content)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"study {path}: {error}") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twin!r} is there twice")
    return values


def _study(content: dict[str, Any]) -> Study:
    _check_keys(content, "the study", _KEYS, _MORE_KEYS)
    common = by_flag(content["common"], '"common"')
    _refuse(common, '"common"', _SET_HERE, "the comparison sets it for every cell")
    lists = dict(content["lists"])
    upper = content.get("upper_bound")
    if upper is not None:
        _check_keys(upper, '"upper_bound"', ("recipe", "list"))
        upper = (upper["recipe"], upper["list"])
        _check_member(upper[1], lists, '"upper_bound"')
    compared = tuple(name for name in lists if upper is None or name != upper[1])
    recipes = {
        name: _recipe(name, entry, content["seeds"], compared)
        for name, entry in content["recipes"].items()
    }
    for name in (*lists, *recipes):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a folder; use letters, digits and - _ + .")
    baseline, baseline_list = content["baseline"], None
    if isinstance(baseline, dict):
        _check_keys(baseline, '"baseline"', ("recipe", "list"))
        baseline, baseline_list = baseline["recipe"], baseline["list"]
    _check_member(baseline, recipes, '"baseline"')
    if baseline_list is not None:
        _check_member(baseline_list, recipes[baseline].lists, '"baseline"')
    if upper is not None:
        _check_member(upper[0], recipes, '"upper_bound"')
    return Study(
        content.get("about", ""),
        common,
        recipes,
        lists,
        content["validation"],
        baseline,
        baseline_list,
        upper,
        bool(content.get("judge_pseudo_labels", False)),
    )


def _recipe(
    name: str, entry: dict[str, Any], seeds: list[int], lists: Sequence[str]
) -> StudyRecipe:
    where = f"recipe {name!r}"
    _check_keys(entry, where, _RECIPE_KEYS[:1], _RECIPE_KEYS[1:])
    flags = by_flag(entry.get("flags", []), where)
    _refuse(flags, where, _SET_HERE, "the comparison sets it for every cell")
    _refuse(
        flags, where, EQUAL_FLAGS, 'it must be equal for all recipes, so it belongs into "common"'
    )
    seeds, own = entry.get("seeds", seeds), tuple(entry.get("lists", lists))
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f'{where}: "seeds" {seeds} is no list of whole numbers from 0 on')
    for listing in own:
        _check_member(listing, lists, where)
    return StudyRecipe(name, entry["script"], flags, tuple(sorted(set(seeds))), own)


def _refuse(flags: Iterable[str], where: str, refused: Iterable[str], reason: str) -> None:
    for name in flags:
        if name in refused:
            raise ValueError(f"{where} has --{name}: {reason}")


def _check_member(name: str, known: Iterable[str], where: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: {name!r} is none of {', '.join(known)}")


def _check_keys(content: Any, where: str, needed: Sequence[str], more: Sequence[str] = ()) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {content!r}, expected an object with {', '.join(needed)}")
    for name in needed:
        if name not in content:
            raise ValueError(f"{where} lacks {name!r}")
    for name in content:
        _check_member(name, (*needed, *more), where)
