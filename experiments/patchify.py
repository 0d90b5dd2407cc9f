"""Cuts photos, orthomosaics and their masks into the patches that the training scripts read.

    python -m experiments.patchify PHOTOS --output DATA --class-mapping class_mapping.csv

PHOTOS holds ``images`` and perhaps ``masks``, or folders that do, or folders of photos. Run again
after an interruption, the same command goes on where it was.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.console import parse, run_script
from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.grid import Grid
from ignite_salak.data.patchify import PatchifySummary, check_photos, nearest_class, patchify

_LOGGER = logging.getLogger(__name__)
_MAX_LISTED = 10


@dataclass
class Options:
    """Cuts photos, orthomosaics and their masks into patches."""

    input: tyro.conf.Positional[Path]
    """Folder of photos (jpg, png, tif) or GeoTIFF orthomosaics, and perhaps masks."""
    output: Path | None = None
    """New folder for the patches, outside of INPUT."""
    class_mapping: Path | None = None
    """CSV of class names and colours; INPUT/class_mapping.csv if not given."""
    patch_size: int = 256
    """Side of the patches in pixels."""
    stride: int | None = None
    """Distance of the patches in pixels; the patch size if not given, less for overlap."""
    edge: Literal["pad", "drop", "shift"] = "pad"
    """Patches that leave the photo: fill up with black, leave out, or move back inside."""
    group: str = "keep"
    """Folders: keep those of INPUT, source (one per photo), or a number of photos per folder."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    black_is_nodata: bool = True
    """Take pure black pixels for "no image content"; otherwise only what the file marks as nodata
    or transparent."""
    num_workers: int = 2
    """Threads that cut."""
    check: bool = False
    """Only look, list every problem and what would be written."""


def main(arguments: Sequence[str]) -> None:
    """Cuts, or checks, and prints what was found."""
    options = parse(Options, arguments)
    if not options.input.is_dir():
        raise FileNotFoundError(f"INPUT {options.input} is not a folder")
    if options.output is None and not options.check:
        raise ValueError("--output is missing: a new folder for the patches (or --check)")
    classes = ClassMap.from_csv(options.class_mapping or options.input / "class_mapping.csv")
    stride = options.patch_size if options.stride is None else options.stride
    grid = Grid(options.patch_size, stride, options.edge)
    if options.output is None or options.check:
        check(options, classes, grid)
        return
    summary = patchify(
        options.input,
        options.output,
        classes,
        grid,
        group=options.group,
        mask_format=options.mask_format,
        black_is_nodata=options.black_is_nodata,
        workers=options.num_workers,
        show_progress=True,
    )
    for note in listed(summary.notes):
        _LOGGER.warning("%s", note)
    resumed = f" ({summary.resumed:,} of them by an earlier run)" if summary.resumed else ""
    print(
        f"{summary.photos:,} photos -> {summary.patches:,} patches{resumed}, "
        f"{summary.masked_patches:,} of them with masks, {summary.dropped:,} empty ones dropped, "
        f"under {options.output}"
    )
    print(describe_masks(summary, classes))


def check(options: Options, classes: ClassMap, grid: Grid) -> None:
    """Prints what is there, what would be written, and every problem.

    Raises:
        BadFileError: there is a problem.
    """
    summary = check_photos(
        options.input,
        classes,
        grid,
        group=options.group,
        mask_format=options.mask_format,
        black_is_nodata=options.black_is_nodata,
        workers=options.num_workers,
        show_progress=True,
    )
    sizes = [f"{width} x {height}" for width, height in summary.sizes]
    shown = f", {' to '.join(dict.fromkeys((sizes[0], sizes[-1])))} pixels" if sizes else ""
    print(
        f"{summary.photos:,} photos{shown}; {summary.masks:,} with masks, "
        f"{summary.photos - summary.masks:,} without"
    )
    print(
        f"would become {summary.patches:,} patches of {grid.size} x {grid.size} (stride "
        f"{grid.stride}, edge {grid.edge}), {summary.masked_patches:,} of them with masks; "
        f"{summary.dropped:,} empty ones dropped; about {summary.num_bytes / 1e6:,.0f} MB"
    )
    print(describe_masks(summary, classes))
    for kind, lines in (("note", summary.notes), ("problem", summary.problems)):
        for line in lines:
            print(f"{kind}: {line}")
    if summary.problems:
        raise BadFileError(f"{len(summary.problems)} problem(s), listed above; nothing was written")
    print("no problem found; nothing was written")


def describe_masks(summary: PatchifySummary, classes: ClassMap) -> str:
    """Returns the shares of the classes, of what is ignored, and the colours without a class."""
    if not summary.masks:
        return "no masks: all patches are unlabelled"
    labeled = int(summary.pixels.sum())
    width = max(len(name) for name in (*classes.names, "ignored"))
    lines = [
        f"  {name:<{width}}  {100 * int(pixels) / max(1, labeled):6.2f} % of the labelled pixels"
        for name, pixels in zip(classes.names, summary.pixels, strict=True)
    ]
    ignored = 100 * summary.ignored / max(1, labeled + summary.ignored)
    lines.append(f"  {'ignored':<{width}}  {ignored:6.2f} % of the mask pixels")
    colors = [
        f"  {' '.join(map(str, color))}: {pixels:,} pixels, nearest class "
        f"{nearest_class(color, classes)}"
        for color, pixels in summary.unlisted.items()
    ]
    if colors:
        lines += ["colours that the class mapping lacks:", *listed(colors)]
    return "\n".join(lines)


def listed(lines: Sequence[str]) -> list[str]:
    """Returns the first lines, and how many more there are."""
    more = len(lines) - _MAX_LISTED
    return [*lines[:_MAX_LISTED], *([f"  ... and {more:,} more"] if more > 0 else [])]


if __name__ == "__main__":
    sys.exit(run_script(main, None))
