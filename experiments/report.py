"""Makes report.html of runs again, and one page that puts several side by side.

python -m experiments.report checkpoints_v3
python -m experiments.report runs/with runs/without --output comparison.html
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.console import parse, run_script
from ignite_salak.report import read_run, write_comparison, write_report


@dataclass
class Options:
    """Makes report.html of runs again, and one page that puts several side by side."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs; each gets its report.html."""
    output: Path | None = None
    """Page that compares several runs (default: comparison.html in the current folder)."""


def main(arguments: Sequence[str]) -> None:
    """Writes the pages and prints where they are."""
    options = parse(Options, arguments)
    folders = list({folder.resolve(): folder for folder in options.folders}.values())
    if not folders:
        raise ValueError("no folder of a run is given; try: python -m experiments.report DIR")
    if len(folders) == 1 and options.output is not None:
        raise ValueError(
            f"--output {options.output} is for the page that compares several runs; one run's page "
            f"is {folders[0] / 'report.html'}"
        )
    if options.output is not None and not options.output.parent.is_dir():
        raise FileNotFoundError(f"--output {options.output}: its folder does not exist")
    for folder in folders:
        read_run(folder)  # refuse before anything is written
    for folder in folders:
        print(write_report(folder))
    if len(folders) > 1:
        print(write_comparison(folders, options.output or Path("comparison.html")))


if __name__ == "__main__":
    sys.exit(run_script(main, None))
