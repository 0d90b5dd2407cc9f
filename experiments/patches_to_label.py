"""Chooses the patches to label next, spread over the photos, and copies them for the labelling.

python -m experiments.patches_to_label --data-root DATA --count 200 --output to_label
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.console import parse, run_script
from experiments.tables import text_table
from ignite_salak.data.decoding import BadFileError, read_image
from ignite_salak.data.listings import listed_patches
from ignite_salak.data.patches import PatchIndex, scan_patches
from ignite_salak.data.samples import patches_to_label

_LOGGER = logging.getLogger("ignite_salak.patches_to_label")
_HEAD = ("folder", "photos", "with labels", "patches to label", "photos with labels then")


@dataclass
class Options:
    """Chooses the patches to label next: of the photos with fewest labels, evenly along the flight.

    --debug shows the traceback of an error.
    """

    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    count: int
    """Number of patches to label."""
    labeled_files: Path | None = None
    """Text file of the source images, or single patches, that are labelled; all with masks if not
    given."""
    val_files: Path | None = None
    """Text file of the validation source images, of which no patch is chosen."""
    min_content: float = 0.5
    """Smallest share of a patch that is not black, 0 to 1; 0 where black is content."""
    simulate: bool = False
    """Choose among the patches that have masks and are not in --labeled-files, and write a list of
    these and those alone: trained with, it tells what such labels are worth."""
    seed: int = 0
    """Seed of the choice among the patches of a photo."""
    output: Path = Path("to_label")
    """Folder for the list and the patches, in the data's layout."""

    def check(self) -> None:
        """Refuses what is no number of patches or no share, and a folder that is there."""
        if self.count < 1:
            raise ValueError(f"--count {self.count} is not at least 1")
        if not 0 <= self.min_content <= 1:
            raise ValueError(f"--min-content {self.min_content:g} is not between 0 and 1")
        if self.output.exists():
            raise ValueError(f"--output {self.output} is there already: give another folder")
        if self.data_root.resolve() in self.output.resolve().parents:
            raise ValueError(f"--output {self.output} is in --data-root: give a folder elsewhere")


def main(arguments: Sequence[str]) -> None:
    """Chooses and copies, from options to patches."""
    options = parse(Options, arguments)
    options.check()
    index = scan_patches(options.data_root)
    labeled, candidates = _pools(index, options)

    chosen = _choose(index, candidates, labeled, options)
    if not len(chosen):
        kind = "with" if options.simulate else "without"
        raise ValueError(f"no patch {kind} a mask is left to choose under {options.data_root}")
    if len(chosen) < options.count:
        _LOGGER.warning("--count %d, but only %d patches are left", options.count, len(chosen))

    # Write and show
    listing = options.output / ("labeled.txt" if options.simulate else "patches.txt")
    listing.parent.mkdir(parents=True)
    listed = np.union1d(labeled, chosen) if options.simulate else chosen
    text = "".join(f"{index.patch_name(patch)}\n" for patch in listed.tolist())
    listing.write_text(text, encoding="utf-8", newline="\n")
    print(text_table(_HEAD, _rows(index, labeled, chosen)))
    if options.simulate:
        print(f"\n{listing}, for --labeled-files, lists them and those that have labels")
        return
    _copy(index, chosen, options.output)
    print(
        f"\n{listing} lists them. Label the images under {options.output}, put the masks into the "
        "folders for masks beside them, under the same names, and copy the folder over "
        f"{options.data_root}"
    )


def _pools(index: PatchIndex, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The patches that are labelled, and those to choose from, none of a validation image."""
    free = index.has_mask if options.simulate else ~index.has_mask
    if options.val_files is not None:
        validation = listed_patches(index, options.val_files, single_patches=False)
        free = free & ~np.isin(index.source_ids, index.source_ids[validation])
    if options.labeled_files is not None:
        labeled = listed_patches(index, options.labeled_files, single_patches=True)
    else:
        labeled = np.flatnonzero(index.has_mask & (not options.simulate))
    return labeled, np.setdiff1d(np.flatnonzero(free), labeled)


def _choose(
    index: PatchIndex, candidates: np.ndarray, labeled: np.ndarray, options: Options
) -> np.ndarray:
    """The patches to label; in the place of one that is mostly black another of its photo."""
    looked_at = candidates[:0]
    while True:
        chosen = patches_to_label(index, candidates, labeled, options.count, options.seed)
        new = np.setdiff1d(chosen, looked_at)
        bad = [patch for patch in new if not _has_content(index, patch, options.min_content)]
        if not bad:
            return chosen
        looked_at = np.union1d(looked_at, new)
        candidates = np.setdiff1d(candidates, bad)


def _has_content(index: PatchIndex, patch: int, wanted: float) -> bool:
    try:
        return float(read_image(index.image_path(patch)).any(axis=2).mean()) >= wanted
    except BadFileError as error:
        _LOGGER.warning("passed over a bad file: %s", error)
        return False


def _copy(index: PatchIndex, patches: np.ndarray, output: Path) -> None:
    """Copies images into the data's layout, with empty folders for their masks."""
    for patch in patches.tolist():
        source = index.image_path(patch)
        image = output / source.relative_to(index.root)
        masks = index.mask_folders[int(index.folder_ids[patch])]
        image.parent.mkdir(parents=True, exist_ok=True)
        (output / masks if masks else image.parent.with_name("masks")).mkdir(exist_ok=True)
        shutil.copyfile(source, image)


def _rows(index: PatchIndex, labeled: np.ndarray, chosen: np.ndarray) -> list[list[str]]:
    """Photos of every folder: all, with labels today, and with those that are chosen."""
    folder_of = np.asarray([folder for folder, _ in index.sources])
    columns = [
        np.arange(len(index.sources)),
        np.unique(index.source_ids[labeled]),
        index.source_ids[chosen],
        np.unique(index.source_ids[np.concatenate([labeled, chosen])]),
    ]
    counts = [np.bincount(folder_of[column], minlength=len(index.folders)) for column in columns]
    rows = [
        [name or ".", *(f"{count[number]:,}" for count in counts)]
        for number, name in enumerate(index.folders)
    ]
    return [*rows, ["all", *(f"{len(column):,}" for column in columns)]]


if __name__ == "__main__":
    sys.exit(run_script(main, None))
