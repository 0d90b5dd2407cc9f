"""What must be equal of all recipes: or they are not compared, but their budgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.options import AugmentationOptions
from experiments.training import RecipeOptions

__all__ = ["EQUAL_FLAGS", "budget", "check_equal_budgets", "flags_of"]


def flags_of(kind: type) -> tuple[str, ...]:
    """Returns the names of a class of options as flags, without the dashes."""
    return tuple(field.name.replace("_", "-") for field in dataclasses.fields(kind))


EQUAL_FLAGS = (
    *("num-steps", "batch-size", "eval-every", "early-stop-patience"),
    *("input-size", "class-mapping", "num-classes", "mask-format", "skip-bad-files"),
    *flags_of(AugmentationOptions),
)
"""Flags that a study may only give to all recipes."""


def budget(options: RecipeOptions) -> dict[str, Any]:
    """Returns what must be equal of all recipes of a study, by flag, plain values."""
    values: dict[str, Any] = {
        "num-steps": options.schedule.num_steps,
        "batch-size": options.schedule.batch_size,
        "eval-every": options.run.eval_every,
        "early-stop-patience": options.run.early_stop_patience,
        "input-size": options.data.input_size,
    }
    augmentation: AugmentationOptions = options.augmentation  # type: ignore[attr-defined]
    values |= {
        name.replace("_", "-"): list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(augmentation).items()
    }
    return values


def check_equal_budgets(budgets: Mapping[str, Mapping[str, Any]]) -> None:
    """Compares budgets, where a script may have another default than the others.

    Args:
        budgets: by name of recipe or cell.

    Raises:
        ValueError: two differ.
    """
    names = list(budgets)
    for name in names[1:]:
        for flag, value in budgets[names[0]].items():
            other = budgets[name].get(flag)
            if other != value:
                raise ValueError(
                    f"--{flag} is {value} for {names[0]!r} but {other} for {name!r}: say it in the "
                    'study\'s "common", so that budgets are equal'
                )
