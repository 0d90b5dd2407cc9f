"""Cuts photos and their masks into the patches that the training scripts read.

    python -m experiments.patchify INPUT --output DATA --class-mapping INPUT/class_mapping.csv

INPUT holds ``images`` and perhaps ``masks``, or folders that do.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.console import parse, run_script
from ignite_salak.classes import ClassMap
from ignite_salak.data.patchify import patchify


@dataclass
class Options:
    """Cuts photos and their masks into patches."""

    input: tyro.conf.Positional[Path]
    """Folder with images and perhaps masks."""
    output: Path
    """New folder for the patches."""
    class_mapping: Path | None = None
    """CSV of class names and colours (default: INPUT/class_mapping.csv)."""
    patch_size: int = 256
    """Side of the patches in pixels."""
    mask_format: Literal["auto", "color", "index"] = "auto"
    """How RGB masks with three equal channels are read."""
    num_workers: int = 2
    """Threads that cut."""


def main(arguments: Sequence[str]) -> None:
    """Cuts and prints what was cut."""
    options = parse(Options, arguments)
    if not options.input.is_dir():
        raise FileNotFoundError(f"INPUT {options.input} is not a folder")
    classes = ClassMap.from_csv(options.class_mapping or options.input / "class_mapping.csv")
    summary = patchify(
        options.input,
        options.output,
        classes,
        patch_size=options.patch_size,
        mask_format=options.mask_format,
        workers=options.num_workers,
    )
    print(
        f"{summary.photos} photos -> {summary.patches:,} patches, {summary.masks:,} of them with "
        f"masks, under {options.output}"
    )
    for name, pixels in zip(classes.names, summary.pixels, strict=True):
        print(
            f"  {name}: {100 * pixels / max(1, summary.pixels.sum()):.2f} % of the labelled pixels"
        )


if __name__ == "__main__":
    sys.exit(run_script(main, None))
