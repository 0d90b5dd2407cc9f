"""Puts several draws of photos of one comparison together, each with validation photos of its own.

python -m experiments.draws experiments/compare_dubai.json runs/first runs/second
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.comparison.draws import read_draws
from experiments.comparison.draws_page import draws_page
from experiments.comparison.study_file import read_study
from experiments.console import parse, run_script


@dataclass
class Options:
    """Puts several draws of photos of one comparison together.

    Every draw was run by experiments.compare with lists of its own, and no photo is a validation
    photo of two of them.
    """

    study: tyro.conf.Positional[Path]
    """JSON file of recipes, lists and seeds that all draws have in common."""
    folders: tyro.conf.Positional[tuple[Path, ...]]
    """For every draw, what experiments.compare was given as --output; folders in which the same
    photos are judged are one draw."""


def main(arguments: Sequence[str]) -> None:
    """Prints the tables."""
    options = parse(Options, arguments)
    study = read_study(options.study)
    print(draws_page(study, read_draws(study, options.folders)))


if __name__ == "__main__":
    sys.exit(run_script(main, None))
