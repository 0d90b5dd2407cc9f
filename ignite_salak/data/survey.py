"""What is to be cut: photos and their masks, what is wrong with them, and what the masks hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ignite_salak.classes import IGNORE_INDEX, ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.ortho_masks import MaskTable, OrthoMask
from ignite_salak.data.orthomosaics import OrthoImage, same_ground
from ignite_salak.data.patches import IMAGE_SUFFIXES, scan_patches
from ignite_salak.data.sources import Header, read_header

__all__ = ["Photo", "Survey", "find_photos", "make_survey"]

_Found = tuple[str, Path, Path | None]
_Study = tuple[MaskTable | None, np.ndarray, Counter[tuple[int, int, int]]]


@dataclass(frozen=True)
class Photo:
    """One photo or orthomosaic.

    Attributes:
        folder: its folder relative to the input, "" for the input itself, POSIX separators.
        image: header of the image.
        mask: header of the mask, or None.
        target: folder of its patches relative to the output, "" for the output itself.
        table: what the values of a large mask mean.
    """

    folder: str
    image: Header
    mask: Header | None = None
    target: str = ""
    table: MaskTable | None = None

    @property
    def stem(self) -> str:
        """Name of the photo, with which the names of its patches begin."""
        return self.image.path.stem

    @property
    def name(self) -> str:
        """Folder and file name, for messages and records."""
        return f"{self.folder}/{self.image.path.name}".lstrip("/")


@dataclass
class Survey:
    """All photos, and what their headers and masks tell.

    Attributes:
        photos: what can be cut, sorted by folder and name.
        reader: how the masks are read.
        pixels: mask pixels of every class, int64 [C].
        found: photos found.
        masks: masks found that have a photo.
        ignored: mask pixels that are ignored, those of unlisted colours among them.
        unlisted: mask pixels of every colour that the class list lacks.
        problems: what forbids cutting, each beginning with the file.
        notes: what the user should know, each beginning with the file.
    """

    photos: list[Photo]
    reader: MaskReader
    pixels: np.ndarray
    found: int = 0
    masks: int = 0
    ignored: int = 0
    unlisted: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_survey(
    root: Path, classes: ClassMap, *, group: str, mask_format: str, pool: Executor
) -> Survey:
    """Finds photos and masks, reads all headers and decodes all masks.

    Args:
        root: see ``find_photos``.
        classes: the class list.
        group: "keep" leaves the folders as they are; "source" makes a folder of every photo;
            a number makes folders of that many photos.
        mask_format: see ``MaskReader``.
        pool: runs what can run side by side.

    Raises:
        FileNotFoundError: there are no photos.
        ImportError: there are GeoTIFFs and rasterio is missing.
        ValueError: ``group`` is unknown, or two photos would have patches of one name.
    """
    found, orphans = find_photos(root)
    survey = Survey([], MaskReader(classes), np.zeros(classes.num_classes, np.int64))
    survey.found, survey.masks = len(found), sum(mask is not None for _, _, mask in found)
    survey.notes += [f"{path}: a mask without its photo" for path in orphans]
    targets = _targets(found, root, group)
    for (folder, *_), target, headers in zip(
        found, targets, pool.map(_read_headers, found), strict=True
    ):
        if isinstance(headers, str):
            survey.problems.append(headers)
        else:
            survey.photos.append(Photo(folder, *headers, target))
    survey.photos = [_compare(photo, survey) for photo in survey.photos]
    _settle_format(survey, mask_format)
    _study_masks(survey, pool)
    return survey


def find_photos(root: Path) -> tuple[list[_Found], list[Path]]:
    """Pairs photos and masks.

    Photos lie in folders named ``images`` with masks in ``masks`` beside them, the layout of
    ``patches.py``; where no folder is named so, in any folder, with masks in its ``masks``.

    Args:
        root: folder to search.

    Returns:
        Folder relative to the root, image, and mask or None of every photo; masks without photo.

    Raises:
        FileNotFoundError: there are no photos.
        ValueError: two photos of one folder have the same stem.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    folders = list(_folders(root))
    if not any(folder.name.lower() == "images" for folder in folders):
        return _pair_anywhere(root, folders)
    index = scan_patches(root, cache=False)
    masked = index.has_mask
    found: list[_Found] = [
        (
            index.folders[int(index.folder_ids[photo])],
            index.image_path(photo),
            index.mask_path(photo) if masked[photo] else None,
        )
        for photo in range(len(index))
    ]
    masks = [path for folder in index.mask_folders if folder for path in _list(root / folder)]
    return found, _without(masks, found)


def _folders(root: Path) -> Iterator[Path]:
    """Yields the folder and all below it, except hidden ones and those named ``masks``."""
    yield root
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name[0] != "." and path.name.lower() != "masks":
            yield from _folders(path)


def _list(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    )


def _pair_anywhere(root: Path, folders: list[Path]) -> tuple[list[_Found], list[Path]]:
    found: list[_Found] = []
    masks: list[Path] = []
    for folder in folders:
        beside = [path for path in folder.iterdir() if path.name.lower() == "masks"]
        own = _by_stem([path for child in beside if child.is_dir() for path in _list(child)])
        masks += own.values()
        relative = "" if folder == root else folder.relative_to(root).as_posix()
        for stem, image in _by_stem(_list(folder)).items():
            found.append((relative, image, own.get(stem) or own.get(f"{stem}_mask")))
    if not found:
        raise FileNotFoundError(
            f"{root} holds no photo ({', '.join(IMAGE_SUFFIXES)}), neither in folders named "
            "'images' nor in any other"
        )
    return found, _without(masks, found)


def _by_stem(paths: list[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{other} and {path.name} have the same stem; keep only one")
    return stems


def _without(masks: list[Path], found: list[_Found]) -> list[Path]:
    used = {mask for _, _, mask in found}
    return [path for path in masks if path not in used]


def _targets(found: list[_Found], root: Path, group: str) -> list[str]:
    """The folder of every photo's patches, relative to the output."""
    if group not in ("keep", "source") and not (group.isdecimal() and int(group)):
        raise ValueError(f"--group {group!r} is neither 'keep', 'source' nor a number of photos")
    targets: list[str] = []
    numbers: Counter[str] = Counter()
    owners: dict[tuple[str, str], Path] = {}
    for folder, image, _ in found:
        target = folder
        if group == "source":
            target = f"{folder}/{image.stem}".lstrip("/")
        elif group != "keep":
            part = 1 + numbers[folder] // int(group)
            numbers[folder] += 1
            target = f"{folder or root.resolve().name or 'photos'}-{part:03d}"
        # Windows takes names that differ only in case for the same.
        other = owners.setdefault((target.casefold(), image.stem.casefold()), image)
        if other != image:
            raise ValueError(
                f"{other} and {image} would have patches of the same names; rename one"
            )
        targets.append(target)
    return targets


def _read_headers(found: _Found) -> tuple[Header, Header | None] | str:
    _, image, mask = found
    try:
        return read_header(image), None if mask is None else read_header(mask)
    except BadFileError as error:
        return str(error)


def _compare(photo: Photo, survey: Survey) -> Photo:
    """Returns the photo, without its mask if that does not fit."""
    image, mask = photo.image, photo.mask
    problem = _misfit(image, mask) if mask is not None else ""
    if not problem and (image.large or (mask is not None and mask.large)):
        problem = _inspect_large(image, mask, survey)
    if problem:
        survey.problems.append(problem)
        return replace(photo, mask=None)
    if mask is not None and image.orientation != mask.orientation:
        survey.notes.append(
            f"{image.path}: the image is turned by its EXIF orientation {image.orientation}; see "
            f"that its mask {mask.path} shows it upright"
        )
    if mask is not None and mask.path.suffix.lower() in (".jpg", ".jpeg"):
        survey.notes.append(f"{mask.path}: JPEG changes the colours of masks; PNG keeps them")
    return photo


def _misfit(image: Header, mask: Header) -> str:
    if (mask.height, mask.width) == (image.height, image.width):
        return ""
    problem = f"{mask.path}: the mask is {mask.size} pixels, its image {image.path} {image.size}"
    if image.orientation != 1 and (mask.width, mask.height) == (image.height, image.width):
        problem += (
            f"; the image is turned by its EXIF orientation {image.orientation} and the mask is "
            "not: turn the mask too"
        )
    return problem


def _inspect_large(image: Header, mask: Header | None, survey: Survey) -> str:
    with ExitStack() as stack:
        try:
            ortho = stack.enter_context(closing(OrthoImage(image.path))) if image.large else None
            if ortho is not None:
                survey.notes += [f"{image.path}: {note}" for note in ortho.notes]
            if mask is None or not mask.large:
                return ""
            labels = stack.enter_context(closing(OrthoMask(mask.path)))
        except BadFileError as error:
            return str(error)
        if ortho is not None and not same_ground(ortho, labels):
            return (
                f"{mask.path}: the mask does not lie on the ground of its image {image.path}; "
                "export both with one extent and one coordinate system"
            )
        if labels.nodata is not None and labels.nodata in range(survey.reader.classes.num_classes):
            survey.notes.append(
                f"{mask.path}: {labels.nodata:g} is a class and the file's nodata value: such "
                "pixels are ignored; to keep the class, gdal_edit -unsetnodata"
            )
    return ""


def _settle_format(survey: Survey, mask_format: str) -> None:
    masks = [photo.mask for photo in survey.photos if photo.mask is not None]
    plain = [mask.path for mask in masks if not mask.large]
    survey.reader = MaskReader.resolve(survey.reader.classes, mask_format, plain)
    if mask_format == "auto" and survey.reader.mask_format == "index":
        for mask in masks:
            if mask.large and _in_colors(mask.path):
                survey.reader = MaskReader(survey.reader.classes, "color")
                return


def _in_colors(path: Path) -> bool:
    try:
        with closing(OrthoMask(path)) as mask:
            return mask.in_colors()
    except BadFileError:  # reported when it is studied
        return False


def _study_masks(survey: Survey, pool: Executor) -> None:
    """Reads all masks before anything is written, so that wrong colours cost nothing."""
    results = pool.map(lambda photo: _study(photo, survey.reader), survey.photos)
    photos = []
    for photo, result in zip(survey.photos, results, strict=True):
        if isinstance(result, str):
            survey.problems.append(result)
            photos.append(replace(photo, mask=None))
            continue
        table, histogram, unlisted = result
        photos.append(replace(photo, table=table))
        survey.pixels += histogram[: len(survey.pixels)]
        survey.ignored += int(histogram[IGNORE_INDEX])
        survey.unlisted.update(unlisted)
    survey.photos = photos


def _study(photo: Photo, reader: MaskReader) -> _Study | str:
    histogram = np.zeros(256, dtype=np.int64)
    if photo.mask is None:
        return None, histogram, Counter()
    try:
        with ExitStack() as stack:
            ortho = None
            if photo.image.large:
                ortho = stack.enter_context(closing(OrthoImage(photo.image.path)))
            if photo.mask.large:
                mask = stack.enter_context(closing(OrthoMask(photo.mask.path)))
                table = mask.study(reader, ortho)
                np.add.at(histogram, table.labels, table.counts)
                return table, histogram, table.unlisted
            labels, unlisted = reader.read(photo.mask.path)
            if ortho is not None:
                for top, bottom in ortho.strips():
                    labels[top:bottom][~ortho.valid(top, bottom)] = IGNORE_INDEX
            return None, np.bincount(labels.ravel(), minlength=256), unlisted
    except BadFileError as error:
        return str(error)
