"""A data root as large as the real one, made of a few small files by hard links.

    python tests/large_folder.py ROOT --pairs DATA

takes its images and masks from ``DATA/images`` and ``DATA/masks``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["FOLDERS", "MASKED_FOLDERS", "MASKS", "PATCHES", "make_large_folder"]

PATCHES = 370_647
MASKS = 12_856
FOLDERS = tuple(f"salak-1-{flight}" for flight in range(1, 7))
MASKED_FOLDERS = FOLDERS[:3]
_ROWS, _COLUMNS = 14, 21  # of 256 x 256 pixels in a photo of 5472 x 3648
_PAIRS = 64  # ext4 allows 65,000 links to a file, so at least six


def make_large_folder(
    root: Path,
    pairs: Sequence[tuple[Path, Path]],
    *,
    patches: int = PATCHES,
    masks: int = MASKS,
) -> Path:
    """Makes six flight folders under the real names; the masks are in the first three.

    The patches of a folder are those of its photos, row by row; those with masks come first. Where
    the file system has no links, or no more of them to one file, the file is copied.

    Args:
        root: the new data root.
        pairs: image and mask files to link to, in turn; of one size each.
        patches: how many, over all folders.
        masks: how many of them have a mask.

    Returns:
        The root.

    Raises:
        ValueError: the masks do not fit into the first three folders.
    """
    if masks > patches // 2:
        raise ValueError(f"{masks} masks do not fit into half of {patches} patches")
    images, labels = (list(files) for files in zip(*pairs, strict=True))
    for folder, size in zip(FOLDERS, _shares(patches, len(FOLDERS)), strict=True):
        _fill(root / folder / "images", images, size)
    for folder, size in zip(MASKED_FOLDERS, _shares(masks, len(MASKED_FOLDERS)), strict=True):
        _fill(root / folder / "masks", labels, size)
    return root


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _names() -> Iterator[str]:
    for photo in itertools.count(1):
        for row, column in itertools.product(range(_ROWS), range(_COLUMNS)):
            yield f"DJI_{photo:04d}_patch_{row:03d}_{column:03d}.png"


def _fill(folder: Path, files: list[Path], size: int) -> None:
    """Links the first ``size`` names to the files in turn; a copy takes its file's place."""
    folder.mkdir(parents=True)
    prefix = os.fspath(folder)
    for number, name in enumerate(itertools.islice(_names(), size)):
        turn = number % len(files)
        target = f"{prefix}/{name}"
        try:
            os.link(files[turn], target)
        except OSError:
            files[turn] = Path(shutil.copyfile(files[turn], target))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=PATCHES)
    parser.add_argument("--masks", type=int, default=MASKS)
    given = parser.parse_args()
    images = sorted((given.pairs / "images").iterdir())
    step = max(1, len(images) // _PAIRS)
    pairs = [(path, given.pairs / "masks" / path.name) for path in images[::step]]
    started = time.perf_counter()
    make_large_folder(given.root, pairs, patches=given.patches, masks=given.masks)
    print(f"{given.patches:,} patches under {given.root}: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    _main()
