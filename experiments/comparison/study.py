"""What is compared: recipes x labelled lists x seeds, read from a JSON file, with equal budgets."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.comparison.budget import EQUAL_FLAGS
from experiments.console import parse
from experiments.training import RecipeOptions

__all__ = ["Cell", "Study", "StudyRecipe", "by_flag", "read_study"]

_NAME = re.compile(r"\w[\w.+-]*")
_KEYS = ("common", "recipes", "lists", "validation", "seeds", "baseline")
_MORE_KEYS = ("about", "upper_bound", "judge_pseudo_labels")
_RECIPE_KEYS = ("script", "flags", "seeds", "lists")

# What the comparison sets itself, for every cell.
_SET_HERE = (
    *("data-root", "labeled-files", "val-files", "val-split", "seed", "threads"),
    *("checkpoint-dir", "restore-from", "overwrite", "config", "demo"),
)


@dataclass(frozen=True)
class StudyRecipe:
    """One way of training.

    Attributes:
        name: what tables call it.
        script: its module in ``experiments``, such as "train_v3".
        flags: its own flags by name, each as the tokens of a command line.
        seeds: seeds of its cells.
        lists: names of the labelled lists that it is trained on.
    """

    name: str
    script: str
    flags: Mapping[str, tuple[str, ...]] = field(hash=False)
    seeds: tuple[int, ...]
    lists: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One run of a study."""

    recipe: StudyRecipe
    listing: str
    seed: int

    @property
    def name(self) -> str:
        """Its name, and its folder below that of the study, "recipe/list/seed_0"."""
        return f"{self.recipe.name}/{self.listing}/seed_{self.seed}"


@dataclass(frozen=True)
class Study:
    """Recipes, labelled lists and seeds.

    Attributes:
        about: a sentence for the head of the tables.
        common: flags of all recipes, by name.
        recipes: by name.
        lists: file names by name, relative to the folder of the lists.
        validation: file name of the list of validation photos.
        baseline: name of the recipe over which gains are counted.
        upper_bound: recipe and list of the upper bound, or None. That list serves nothing else.
        judge_pseudo_labels: whether the unlabelled photos have masks, by which pseudo-labels are
            judged when a cell is trained.
    """

    about: str
    common: Mapping[str, tuple[str, ...]]
    recipes: Mapping[str, StudyRecipe]
    lists: Mapping[str, str]
    validation: str
    baseline: str
    upper_bound: tuple[str, str] | None
    judge_pseudo_labels: bool

    def compared_lists(self) -> tuple[str, ...]:
        """Names of the lists on which recipes are compared: all but that of the upper bound."""
        upper = self.upper_bound[1] if self.upper_bound else None
        return tuple(name for name in self.lists if name != upper)

    def cells(self, only: Sequence[str] = ()) -> list[Cell]:
        """Returns the cells in the order in which they run.

        All recipes run with the first seed before any runs with the second, so that paired
        differences are known early; within a seed, list by list, the upper bound last.

        Args:
            only: names of recipes; none for all.

        Raises:
            ValueError: a name is none of the study's.
        """
        for name in only:
            if name not in self.recipes:
                raise ValueError(f"--only {name}: the study has {', '.join(self.recipes)}")
        recipes = [recipe for name, recipe in self.recipes.items() if not only or name in only]
        seeds = sorted({seed for recipe in recipes for seed in recipe.seeds})
        return [
            Cell(recipe, listing, seed)
            for seed in seeds
            for listing in sorted(self.lists, key=lambda name: name not in self.compared_lists())
            for recipe in recipes
            if seed in recipe.seeds
            and (listing in recipe.lists or (recipe.name, listing) == self.upper_bound)
        ]

    def flags(self, recipe: StudyRecipe) -> dict[str, tuple[str, ...]]:
        """Returns a recipe's flags: the common ones, and its own in place of them."""
        return dict(sorted({**self.common, **recipe.flags}.items()))

    def options(self, recipe: StudyRecipe) -> RecipeOptions:
        """Returns a recipe's options as its script understands the flags.

        Raises:
            ValueError: there is no such script, or it refuses the flags.
        """
        tokens = [token for group in self.flags(recipe).values() for token in group]
        if importlib.util.find_spec(f"experiments.{recipe.script}") is None:
            raise ValueError(
                f"recipe {recipe.name!r}: there is no experiments/{recipe.script}.py; leave it out "
                "by --only and the names of the others"
            )
        module = importlib.import_module(f"experiments.{recipe.script}")
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                return parse(module.Options, tokens)
        except SystemExit as error:
            lines = (line.strip("│|╭╮╰╯─+- ") for line in said.getvalue().splitlines())
            words = " ".join(line for line in lines if line and "full helptext" not in line)
            raise ValueError(
                f"recipe {recipe.name!r}: experiments.{recipe.script} refuses its flags: {words}"
            ) from error


def by_flag(tokens: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """Groups the tokens of a command line by flag.

    Args:
        tokens: such as ["--batch-size=8", "--tta-scales", "0.75", "1.0"].
        where: what errors say of them.

    Returns:
        Tokens by name; the name of "--no-x" is "x", and "--a=b" becomes "--a", "b".

    Raises:
        ValueError: a value has no flag, or a flag is there twice.
    """
    groups: dict[str, tuple[str, ...]] = {}
    name = None
    for token in tokens:
        if not isinstance(token, str):
            raise ValueError(f"{where}: {token!r} is no string; put it into quotation marks")
        if token.startswith("--"):
            flag, equals, value = token.partition("=")
            flag = flag.replace("_", "-")
            name = flag.removeprefix("--").removeprefix("no-")
            if name in groups:
                raise ValueError(f"{where}: --{name} is there twice")
            groups[name] = (flag, value) if equals else (flag,)
        elif name is None:
            raise ValueError(f"{where}: {token!r} belongs to no flag; flags begin with --")
        else:
            groups[name] += (token,)
    return groups


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
    _check_member(content["baseline"], recipes, '"baseline"')
    if upper is not None:
        _check_member(upper[0], recipes, '"upper_bound"')
    return Study(
        content.get("about", ""),
        common,
        recipes,
        lists,
        content["validation"],
        content["baseline"],
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
