"""What is compared: recipes x labelled lists x seeds, with equal budgets."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experiments.console import parse
from experiments.training import RecipeOptions

__all__ = ["Cell", "Study", "StudyRecipe"]


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
        baseline_list: the list that it was trained on; None for the list of the recipe compared.
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
    baseline_list: str | None
    upper_bound: tuple[str, str] | None
    judge_pseudo_labels: bool

    @property
    def baseline_name(self) -> str:
        """What tables call the baseline."""
        return ", ".join(filter(None, (self.baseline, self.baseline_list)))

    def base(self, listing: str) -> tuple[str, str]:
        """Returns recipe and list of the baseline of what was trained on a list."""
        return self.baseline, self.baseline_list or listing

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
