"""One photo, or a part of a large one -> its patches."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.grid import Grid, fill_up
from ignite_salak.data.sources import ImageSource, MaskSource
from ignite_salak.data.survey import Photo

__all__ = ["Cutter", "Result", "Task", "list_tasks"]

_ROWS_PER_TASK = 8  # what is done again after an interruption
_WEIGH_EVERY = 5  # patches, when the disk space is estimated

_Handle = Callable[[str, np.ndarray, np.ndarray | None], int]
_Tiles = Iterator[tuple[str, np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Task:
    """Some rows of patches of one photo; all of them, unless it is large.

    Attributes:
        photo: the photo.
        rows: row number and uppermost pixel of every row.
        columns: leftmost pixel of every column.
    """

    photo: Photo
    rows: tuple[tuple[int, int], ...]
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        """Differs from that of every other task."""
        return f"{self.photo.name} from row {self.rows[0][0]}"

    @property
    def patches(self) -> int:
        """Patches, if none is left out."""
        return len(self.rows) * len(self.columns)

    def stamp(self) -> list[int]:
        """Sizes and dates of the files, which tell whether they have changed."""
        headers = (self.photo.image, self.photo.mask)
        states = [header.path.stat() for header in headers if header is not None]
        return [value for state in states for value in (state.st_size, state.st_mtime_ns)]


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        patches: patches written.
        masked: patches written with a mask.
        dropped: patches left out because the photo has no content there.
        num_bytes: size of the patches, where it was to be estimated.
        problem: why the task failed, beginning with the file; "" where it did not.
    """

    patches: int = 0
    masked: int = 0
    dropped: int = 0
    num_bytes: int = 0
    problem: str = ""


def list_tasks(photos: list[Photo], grid: Grid) -> list[Task]:
    """Divides the work; a photo from which no patch can be cut has no task."""
    tasks = []
    for photo in photos:
        rows = list(enumerate(grid.starts(photo.image.height)))
        columns = tuple(grid.starts(photo.image.width))
        step = _ROWS_PER_TASK if photo.image.large else max(1, len(rows))
        for first in range(0, len(rows) if columns else 0, step):
            tasks.append(Task(photo, tuple(rows[first : first + step]), columns))
    return tasks


class Cutter:
    """Cuts patches; a call may run beside others.

    Args:
        reader: how masks are read.
        grid: where the patches lie.
        black_is_nodata: take pure black pixels for "no image content"; otherwise those that the
            file does not mark as nodata or transparent become 1 1 1, which training takes for
            content.
    """

    def __init__(self, reader: MaskReader, grid: Grid, *, black_is_nodata: bool = True) -> None:
        self.reader = reader
        self.grid = grid
        self.black_is_nodata = black_is_nodata

    def write(self, task: Task, output: Path) -> Result:
        """Writes the patches of a task.

        Args:
            task: what to cut.
            output: folder above that of the photo.

        Raises:
            OSError: a patch cannot be written.
        """
        folder = output / task.photo.target

        def save(name: str, image: np.ndarray, mask: np.ndarray | None) -> int:
            _save(folder / "images" / name, _encode(image))
            if mask is not None:
                _save(folder / "masks" / name, _encode(mask, self.reader.classes.palette))
            return 0

        return self._run(task, save)

    def weigh(self, task: Task) -> Result:
        """Does all that ``write`` does except writing, and estimates the bytes."""
        weights: list[int] = []
        seen = 0

        def weigh(name: str, image: np.ndarray, mask: np.ndarray | None) -> int:
            nonlocal seen
            if seen % _WEIGH_EVERY == 0:
                weights.append(len(_encode(image)))
                if mask is not None:
                    weights[-1] += len(_encode(mask, self.reader.classes.palette))
            seen += 1
            return sum(weights) * seen // len(weights)

        return self._run(task, weigh)

    def _run(self, task: Task, handle: _Handle) -> Result:
        patches = num_bytes = 0
        try:
            for name, image, mask in self._tiles(task):
                num_bytes = handle(name, image, mask)
                patches += 1
        except BadFileError as error:
            return Result(problem=str(error))
        masked = patches if task.photo.mask is not None else 0
        return Result(patches, masked, task.patches - patches, num_bytes)

    def _tiles(self, task: Task) -> _Tiles:
        """Yields file name, image and mask of every patch with content."""
        photo, size = task.photo, self.grid.size
        with ExitStack() as stack:
            image = stack.enter_context(closing(ImageSource(photo.image)))
            mask = None
            if photo.mask is not None:
                mask = stack.enter_context(
                    closing(MaskSource(photo.mask, self.reader, photo.table))
                )
            for row, top in task.rows:
                bottom = min(top + size, photo.image.height)
                pixels, valid = image.read(top, bottom)
                if not self.black_is_nodata:
                    pixels = _lift_black(pixels, valid)
                labels = None if mask is None else mask.read(top, bottom)
                if labels is not None and valid is not None:
                    labels[~valid] = IGNORE_INDEX
                for column, left in enumerate(task.columns):
                    here = slice(left, left + size)
                    if pixels[:, here].any():
                        yield (
                            f"{photo.stem}_patch_{row:03d}_{column:03d}.png",
                            fill_up(pixels[:, here], size, 0),
                            None
                            if labels is None
                            else fill_up(labels[:, here], size, IGNORE_INDEX),
                        )


def _lift_black(pixels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Makes black pixels 1 1 1 that are valid, uint8 [H, W, 3]; None stands for all."""
    black = pixels.max(axis=2, keepdims=True) == 0
    if valid is not None:
        black &= valid[..., None]
    return np.where(black, np.uint8(1), pixels)


def _encode(pixels: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """Returns the content of a PNG file: RGB [H, W, 3], or with a palette class indices [H, W]."""
    image = Image.fromarray(pixels)
    if palette is not None:
        # A palette of 256 colours, or PNG stores fewer bits than the label 255 needs.
        image.putpalette(palette.tobytes() + bytes(3 * (256 - len(palette))))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _save(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except FileNotFoundError:  # asking before every patch whether the folder exists takes longer
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
