"""Draws lists of photos for experiments.compare: every photo with a mask is judged in one draw.

python -m experiments.draw_lists --data-root DATA --draws 4 --labeled 4 8 --output lists
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from experiments.console import parse, run_script
from experiments.masks import look_at_masks
from experiments.options import DataOptions
from experiments.tables import text_table
from ignite_salak.data.draws import (
    class_shares,
    representative_sources,
    share_distance,
    validation_draws,
)
from ignite_salak.data.flights import source_totals
from ignite_salak.data.listings import write_list
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import masked_patches

_LOGGER = logging.getLogger("ignite_salak.draw_lists")
_HEAD = ("list", "photos", "patches", "furthest")


@dataclass
class Options:
    """Draws lists of photos: every photo with a mask is a validation photo of one draw.

    --debug shows the traceback of an error.
    """

    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    class_mapping: Path | None = None
    """CSV of class names and colours; DATA_ROOT/class_mapping.csv if not given."""
    labeled_files: Path | None = None
    """Text file of the source images to draw from; all with masks if not given."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    skip_bad_files: bool = False
    """Go on without files that cannot be read, and list them."""
    draws: int = 4
    """Number of draws; each judges one photo in so many."""
    labeled: tuple[int, ...] = ()
    """Numbers of labelled photos, such as 4 8: a list of each, the smaller one part of the larger;
    with all that a draw does not judge there always is one."""
    overlapping: bool = True
    """Neighbouring photos of a folder show the same ground: judge a run of them in each folder, not
    photos anywhere in it."""
    seed: int = 0
    """Seed of the draws."""
    output: Path = Path("lists")
    """Folder for draw_1, draw_2 and so on, each --lists-folder and --output of compare."""


def main(arguments: Sequence[str]) -> None:
    """Draws, from options to lists."""
    options = parse(Options, arguments)
    if options.output.exists():
        raise ValueError(f"--output {options.output} is there already: give another folder")
    data = DataOptions(data_root=options.data_root, class_mapping=options.class_mapping)
    classes, index = data.load_classes(), scan_patches(data.root())
    masked = masked_patches(index, options.labeled_files)
    _, statistics = look_at_masks(
        index, masked, classes, options.mask_format, options.skip_bad_files
    )
    patches = np.setdiff1d(masked, list(statistics.bad_files))
    sources = np.unique(index.source_ids[patches])
    totals = source_totals(index, statistics.counts)
    shares = class_shares(totals, sources)

    # Draw
    draws = validation_draws(
        index, totals, sources, options.draws, seed=options.seed, overlapping=options.overlapping
    )
    lists: dict[str, np.ndarray] = {}
    for number, validation in enumerate(draws, start=1):
        left = np.setdiff1d(sources, validation)
        lists |= {f"draw_{number}/validation": validation, f"draw_{number}/labeled_all": left}
        for size in sorted(set(options.labeled), reverse=True):
            left = representative_sources(totals, left, size, shares, seed=options.seed)
            lists[f"draw_{number}/labeled_{size}"] = left

    # Write and show
    rows = []
    for name, photos in {**lists, "all": sources}.items():
        own = class_shares(totals, photos)
        count = int(np.isin(index.source_ids[patches], photos).sum())
        distance = share_distance(totals, photos, shares)
        row = [name, str(len(photos)), f"{count:,}", f"{100 * distance:.1f} %"]
        rows.append([*row, *(f"{100 * share:.1f} %" for share in own)])
        absent = [classes.names[number] for number in np.flatnonzero((own == 0) & (shares > 0))]
        if absent:
            _LOGGER.warning("%s has no pixel of: %s", name, ", ".join(absent))
    for name, photos in lists.items():
        path = options.output / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_list(path, map(index.source_name, photos.tolist()))
    print(text_table([*_HEAD, *classes.names], rows))
    print("\nfurthest: the class whose share is furthest from that of all photos, in points")
    print(f"{options.output} holds: {', '.join(f'draw_{n}' for n in range(1, options.draws + 1))}")


if __name__ == "__main__":
    sys.exit(run_script(main, None))
