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
from ignite_salak.data.listings import check_apart, listed_patches, write_list
from ignite_salak.data.patches import PatchIndex, scan_patches
from ignite_salak.data.samples import patches_to_label

_LOGGER = logging.getLogger("ignite_salak.patches_to_label")
_HEAD = ("folder", "photos", "with labels", "patches to label", "photos with labels then")


@dataclass
class Options:
    """Chooses the patches to label next: of photos with fewest labels, evenly along each flight.

    --debug shows the traceback of an error.
    """

    data_root: Path
    """Folder with <folder>/images and <folder>/masks."""
    count: int
    """Number of patches to label."""
    labeled_files: Path | None = None
    """Text file of the source images, or single patches, that training uses with masks; if not
    given, all with masks, with --simulate none. OUTPUT/labeled.txt adds what is chosen."""
    val_files: Path | None = None
    """Text file of the validation source images, of which no patch is chosen, labelled or not."""
    min_content: float = 0.5
    """Smallest share of a patch that is not black, 0 to 1; 0 where black is content."""
    simulate: bool = False
    """Try out what more labels would bring: choose among the patches that have masks but are not in
    --labeled-files, as if they had none, copy nothing, and write OUTPUT/labeled.txt to train
    with."""
    seed: int = 0
    """Seed of the choice among the patches of a photo."""
    output: Path = Path("to_label")
    """New folder for the lists, and for the patches in the data's layout under OUTPUT/data."""

    def check(self) -> None:
        """Refuses what is no number of patches or no share, no data, and a folder that is there."""
        if self.count < 1:
            raise ValueError(f"--count {self.count} is not at least 1")
        if not 0 <= self.min_content <= 1:
            raise ValueError(f"--min-content {self.min_content:g} is not between 0 and 1")
        if not self.data_root.is_dir():
            raise FileNotFoundError(f"--data-root {self.data_root} is not a folder")
        if self.output.exists():
            raise ValueError(f"--output {self.output} is there already: give another folder")
        file = next((path for path in self.output.parents if path.is_file()), None)
        if file is not None:
            raise ValueError(f"--output {self.output} cannot be made: {file} is a file")
        if self.data_root.resolve() in self.output.resolve().parents:
            raise ValueError(f"--output {self.output} is in --data-root: give a folder elsewhere")


def main(arguments: Sequence[str]) -> None:
    """Chooses and copies, from options to patches."""
    options = parse(Options, arguments)
    options.check()
    index = scan_patches(options.data_root)
    if index.orphan_masks:
        _LOGGER.warning("%d masks have no image of the same name", index.orphan_masks)
    labeled, validation, candidates = _pools(index, options)

    chosen, passed_over = _choose(index, candidates, np.union1d(labeled, validation), options)
    kind = "with" if options.simulate else "without"
    where = f"{kind} a mask under {options.data_root}"
    if passed_over:
        where = f"{where}, mostly black or unreadable ones ({passed_over:,}) not counted"
    if not len(chosen):
        raise ValueError(f"nothing is left to choose: no patch {where}")
    if len(chosen) < options.count:
        _LOGGER.warning("--count %d, but %d are all patches %s", options.count, len(chosen), where)

    # Write and show
    options.output.mkdir(parents=True)
    list_of_all = options.output / "labeled.txt"
    if options.simulate or options.labeled_files is not None:
        write_list(list_of_all, map(index.patch_name, np.union1d(labeled, chosen).tolist()))
    print(text_table(_HEAD, _rows(index, labeled, chosen)))
    if options.simulate:
        print(f"\n--labeled-files {list_of_all} trains with them and with those labelled before")
        return
    write_list(options.output / "patches.txt", map(index.patch_name, chosen.tolist()))
    data = options.output / "data"
    _copy(index, chosen, data)
    print(
        f"\nLabel the images under {data}, put each mask, as PNG under its image's name, into the "
        f"folder for masks beside the images, and copy what is in {data} into {options.data_root}"
    )
    if options.labeled_files is not None:
        print(
            f"Then train with --labeled-files {list_of_all}, without the lines of patches that you "
            "did not label"
        )


def _pools(index: PatchIndex, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patches that are labelled, those of validation images, and those to choose from."""
    validation = np.empty(0, dtype=np.int64)
    if options.val_files is not None:
        validation = listed_patches(
            index, options.val_files, single_patches=False, masks_needed=options.simulate
        )
        masked = index.source_ids[index.has_mask]
        unlabeled = np.setdiff1d(index.source_ids[validation], masked)
        if len(unlabeled):
            _LOGGER.warning(
                "%d source images of %s have no mask yet, such as %s: label these whole",
                *(len(unlabeled), options.val_files, index.source_name(int(unlabeled[0]))),
            )
    held_out = np.isin(index.source_ids, index.source_ids[validation])
    if options.labeled_files is not None:
        labeled = listed_patches(index, options.labeled_files, single_patches=True)
        check_apart(index, labeled, validation, (options.labeled_files, options.val_files))
    else:
        labeled = np.flatnonzero(index.has_mask & ~held_out & (not options.simulate))
    free = (index.has_mask if options.simulate else ~index.has_mask) & ~held_out
    return labeled, validation, np.setdiff1d(np.flatnonzero(free), labeled)


def _choose(
    index: PatchIndex, candidates: np.ndarray, labeled: np.ndarray, options: Options
) -> tuple[np.ndarray, int]:
    """The patches to label, and how many were passed over for others, black or unreadable."""
    looked_at = candidates[:0]
    passed_over = 0
    while True:
        chosen = patches_to_label(index, candidates, labeled, options.count, options.seed)
        new = np.setdiff1d(chosen, looked_at)
        bad = [patch for patch in new if not _has_content(index, patch, options.min_content)]
        if not bad:
            return chosen, passed_over
        passed_over += len(bad)
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
        shutil.copy2(source, image)  # of the same date, so that copied back nothing has changed


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
