"""Photos and orthomosaics -> square patches in the layout that ``patches.py`` reads."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ignite_salak.classes import ClassMap
from ignite_salak.data.balance import check_unlisted
from ignite_salak.data.cutting import Cutter, Result, Task, list_tasks
from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.grid import Grid
from ignite_salak.data.manifest import Manifest
from ignite_salak.data.survey import Survey, make_survey
from ignite_salak.files import write_json

__all__ = ["PatchifySummary", "check_photos", "nearest_class", "patchify"]

_FORMAT_VERSION = 1


@dataclass
class PatchifySummary:
    """What ``patchify`` wrote, or would write.

    Attributes:
        photos: photos and orthomosaics.
        masks: those of them with a mask.
        patches: patches written.
        masked_patches: patches written with a mask.
        dropped: patches left out because the photo has no content there.
        pixels: pixels of every class in the photos' masks, int64 [C].
        ignored: mask pixels that are ignored, those of unlisted colours among them.
        unlisted: mask pixels of every colour that the class list lacks, the commonest first; they
            are 255 in the patches.
        resumed: patches that an interrupted run had written.
        num_bytes: size of all patches, estimated by ``check_photos``.
        sizes: width and height of the photos, the smallest first.
        notes: what the user should know, each beginning with a file.
        problems: what forbids cutting, each beginning with a file.
    """

    photos: int
    masks: int
    pixels: np.ndarray
    ignored: int
    unlisted: Counter[tuple[int, int, int]]
    patches: int = 0
    masked_patches: int = 0
    dropped: int = 0
    resumed: int = 0
    num_bytes: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Adds what became of one task."""
        self.patches += result.patches
        self.masked_patches += result.masked
        self.dropped += result.dropped
        self.num_bytes += result.num_bytes
        if result.problem and result.problem not in self.problems:
            self.problems.append(result.problem)


def patchify(
    source: Path,
    output: Path,
    classes: ClassMap,
    grid: Grid,
    *,
    group: str = "keep",
    mask_format: str = "auto",
    black_is_nodata: bool = True,
    workers: int = 2,
    show_progress: bool = False,
) -> PatchifySummary:
    """Cuts every photo, and its mask where there is one.

    Everything goes to a folder ``<output>.partial``, which gets its name when it is complete; the
    same call after an interruption goes on where that was.

    Patches are PNG files named ``<photo>_patch_RRR_CCC``; masks hold class indices with the
    class list's colours as palette. What lies outside the photo, is transparent or nodata, is black
    and 255 in the mask; patches that are black all over are left out. Class list and summary
    (``patchify.json``) lie beside them.

    Args:
        source: folder of photos, see ``find_photos``.
        output: a new or empty folder, not inside ``source``.
        classes: the class list.
        grid: where the patches lie.
        group: folders of the patches, see ``make_survey``.
        mask_format: see ``MaskReader``.
        black_is_nodata: see ``Cutter``.
        workers: threads.
        show_progress: whether to draw a bar on stderr.

    Raises:
        FileNotFoundError: there are no photos.
        FileExistsError: ``output`` is not empty, or ``<output>.partial`` is something else.
        ImportError: there are GeoTIFFs and rasterio is missing.
        BadFileError: a photo or mask cannot be used. If that shows only when it is cut, all others
            are cut first.
        ValueError: an argument is out of range, the masks have too many unlisted colours, or the
            interrupted run had other settings or photos.
    """
    _check_place(source, output)
    partial = output.with_name(f"{output.name}.partial")
    with _threads(workers) as pool:
        survey = make_survey(source, classes, group=group, mask_format=mask_format, pool=pool)
        summary = _begin(survey)
        _refuse(summary.problems, "nothing was cut")
        check_unlisted(summary.unlisted, _total(summary), classes)
        cutter = Cutter(survey.reader, grid, black_is_nodata=black_is_nodata)
        settings = _settings(cutter, group)
        _cut_all(survey, cutter, Manifest(partial, settings), summary, pool, show_progress)
    classes.to_csv(partial / "class_mapping.csv")
    write_json(partial / "patchify.json", _report(summary, classes, settings))
    _rename(partial, output)
    (output / Manifest.NAME).unlink()
    return summary


def _cut_all(
    survey: Survey,
    cutter: Cutter,
    manifest: Manifest,
    summary: PatchifySummary,
    pool: Executor,
    show_progress: bool,
) -> None:
    """Does what an interrupted run has left."""
    grid, tasks = cutter.grid, list_tasks(survey.photos, cutter.grid)

    def write(task: Task) -> Result:
        return cutter.write(task, manifest.folder)

    with closing(manifest):
        for result in _recorded(manifest, tasks):
            summary.add(result)
        summary.resumed = summary.patches
        todo = [task for task in tasks if task.name not in manifest.done]
        done = sum(task.patches for task in tasks) - sum(task.patches for task in todo)
        for task, result in _run(todo, write, pool, done, show_progress):
            summary.add(result)
            if not result.problem:
                manifest.add(task.name, _record(task, result))
    _refuse(summary.problems, f"the others are cut: repair it and run again ({manifest.folder})")
    if not summary.patches:
        shutil.rmtree(manifest.folder)
        raise ValueError(
            f"no patch: the photos are empty, or smaller than --patch-size {grid.size} with "
            f"--edge {grid.edge}"
        )


def check_photos(
    source: Path,
    classes: ClassMap,
    grid: Grid,
    *,
    group: str = "keep",
    mask_format: str = "auto",
    black_is_nodata: bool = True,
    workers: int = 2,
    show_progress: bool = False,
) -> PatchifySummary:
    """Does all that ``patchify`` does except writing, and lists every problem.

    Args:
        source: folder of photos, see ``find_photos``.
        classes: the class list.
        grid: where the patches lie.
        group: folders of the patches, see ``make_survey``.
        mask_format: see ``MaskReader``.
        black_is_nodata: see ``Cutter``.
        workers: threads.
        show_progress: whether to draw a bar on stderr.

    Raises:
        FileNotFoundError: there are no photos.
        ImportError: there are GeoTIFFs and rasterio is missing.
        ValueError: an argument is out of range, or two photos have one name.
    """
    with _threads(workers) as pool:
        survey = make_survey(source, classes, group=group, mask_format=mask_format, pool=pool)
        summary = _begin(survey)
        cutter = Cutter(survey.reader, grid, black_is_nodata=black_is_nodata)
        tasks = list_tasks(survey.photos, grid)
        for _, result in _run(tasks, cutter.weigh, pool, 0, show_progress):
            summary.add(result)
    try:
        check_unlisted(summary.unlisted, _total(summary), classes)
    except ValueError as error:
        summary.problems.append(str(error))
    return summary


def nearest_class(color: tuple[int, int, int], classes: ClassMap) -> str:
    """Returns the name of the class whose colour differs least, by the sum of squares."""
    distances = ((classes.palette.astype(np.int64) - np.asarray(color)) ** 2).sum(axis=1)
    return classes.names[int(distances.argmin())]


@contextmanager
def _threads(workers: int) -> Iterator[Executor]:
    """Threads in which odd tags, missing georeference and large photos are no reason to warn."""
    if workers < 1:
        raise ValueError(f"--num-workers {workers} is not at least 1")
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        for kind in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", kind)
        yield pool


def _check_place(source: Path, output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"--output {output} exists and is not empty; give a new folder")
    if source.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(
            f"--output {output} lies inside the folder of the photos, {source}, where the next run "
            "would take patches for photos; give a folder outside"
        )


def _begin(survey: Survey) -> PatchifySummary:
    images = [photo.image for photo in survey.photos]
    return PatchifySummary(
        photos=survey.found,
        masks=survey.masks,
        pixels=survey.pixels,
        ignored=survey.ignored,
        unlisted=Counter(dict(survey.unlisted.most_common())),
        sizes=sorted(((i.width, i.height) for i in images), key=lambda size: size[0] * size[1]),
        notes=list(survey.notes),
        problems=list(survey.problems),
    )


def _total(summary: PatchifySummary) -> int:
    return int(summary.pixels.sum()) + summary.ignored


def _refuse(problems: list[str], consequence: str) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more; --check lists all)" if len(problems) > 1 else ""
        raise BadFileError(f"{problems[0]}{more}; {consequence}")


def _settings(cutter: Cutter, group: str) -> dict[str, Any]:
    return {
        "version": _FORMAT_VERSION,
        **{f"patch {name}": value for name, value in asdict(cutter.grid).items()},
        "group": group,
        "mask format": cutter.reader.mask_format,
        "black is nodata": cutter.black_is_nodata,
        "class mapping": cutter.reader.classes.to_dict(),
    }


def _record(task: Task, result: Result) -> dict[str, Any]:
    counts = {"patches": result.patches, "masked": result.masked, "dropped": result.dropped}
    return {"target": task.photo.target, "stamp": task.stamp(), **counts}


def _recorded(manifest: Manifest, tasks: list[Task]) -> Iterator[Result]:
    """Yields the results of an interrupted run, once it is sure that they still hold."""
    by_name = {task.name: task for task in tasks}
    for name, values in manifest.done.items():
        task = by_name.get(name)
        result = Result(values["patches"], values["masked"], values["dropped"])
        if task is None or {"task": name, **_record(task, result)} != values:
            raise ValueError(
                f"{manifest.folder} holds patches of {name}, which has changed, moved or gone "
                f"since: restore it, or delete {manifest.folder}"
            )
        yield result


def _run(
    tasks: list[Task],
    work: Callable[[Task], Result],
    pool: Executor,
    done: int,
    show_progress: bool,
) -> Iterator[tuple[Task, Result]]:
    """Does the tasks side by side, with a bar of patches, of which some are done already."""
    with tqdm(
        total=done + sum(task.patches for task in tasks),
        initial=done,
        desc="Patches",
        unit="",
        unit_scale=False,
        disable=not show_progress,
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,  # few lines in a log file
    ) as bar:
        for task, result in zip(tasks, pool.map(work, tasks), strict=True):
            yield task, result
            bar.set_postfix_str(task.photo.name, refresh=False)
            bar.update(task.patches)


def _report(
    summary: PatchifySummary, classes: ClassMap, settings: dict[str, Any]
) -> dict[str, Any]:
    labeled = max(1, int(summary.pixels.sum()))
    return {
        **{name: getattr(summary, name) for name in ("photos", "masks", "patches")},
        "patches with mask": summary.masked_patches,
        "patches dropped": summary.dropped,
        "classes": {
            name: {"pixels": int(pixels), "share": round(int(pixels) / labeled, 6)}
            for name, pixels in zip(classes.names, summary.pixels, strict=True)
        },
        "ignored pixels": summary.ignored,
        "unlisted colours": [
            {"colour": color, "pixels": pixels, "nearest": nearest_class(color, classes)}
            for color, pixels in summary.unlisted.items()
        ],
        "notes": summary.notes,
        "settings": settings,
    }


def _rename(partial: Path, output: Path) -> None:
    try:
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise OSError(
            f"{partial} is complete but cannot be renamed to {output} ({error}); close what has "
            "it open and run again"
        ) from error
