"""The class list of a data set: names, colours, indices and pseudo-label thresholds."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BACKGROUND", "IGNORE_INDEX", "SALAK_THRESHOLDS", "ClassMap"]

IGNORE_INDEX = 255
"""Label of pixels that no loss and no metric counts."""

BACKGROUND = 0
"""Index of the background: trained where labelled, never pseudo-labelled."""

SALAK_THRESHOLDS: Mapping[str, float] = {
    "badan air": 0.60,
    "bangunan": 0.65,
    "jalan": 0.70,
    "pohon berinang": 0.65,
    "snake fruit": 0.55,
    "tanah terbuka": 0.60,
}
"""Confidence thresholds of the V3 guide, by lower-case class name."""

_MAX_CLASSES = 250


@dataclass(frozen=True)
class ClassMap:
    """Names, colours and optional confidence thresholds; a class's index is its position.

    Attributes:
        names: one name per class; class 0 is the background.
        colors: one (red, green, blue) triple per class, 0-255, all different.
        thresholds: confidence above which a pixel becomes a pseudo-label of the class, or None
            where the class list does not say.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    thresholds: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.thresholds:
            object.__setattr__(self, "thresholds", (None,) * len(self.names))
        if not len(self.names) == len(self.colors) == len(self.thresholds):
            raise ValueError(
                f"{len(self.names)} class names, {len(self.colors)} colours and "
                f"{len(self.thresholds)} thresholds: the numbers must be equal"
            )
        if not 2 <= len(self.names) <= _MAX_CLASSES:
            raise ValueError(
                f"{len(self.names)} classes: between 2 and {_MAX_CLASSES} are possible"
            )
        for kind, values in (("name", [n.lower() for n in self.names]), ("colour", self.colors)):
            for position, value in enumerate(values):
                if value in values[:position]:
                    first = self.names[list(values).index(value)]
                    raise ValueError(
                        f"duplicate class {kind} {value!r}: classes {first!r} "
                        f"(index {list(values).index(value)}) and {self.names[position]!r} "
                        f"(index {position})"
                    )
        for name, color, threshold in zip(self.names, self.colors, self.thresholds, strict=True):
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                raise ValueError(f"class {name!r}: colour {color} is not three numbers in 0-255")
            if threshold is not None and not 0.0 <= threshold <= 1.0:
                raise ValueError(f"class {name!r}: threshold {threshold} is not between 0 and 1")

    @property
    def num_classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.names)

    @property
    def palette(self) -> np.ndarray:
        """Colours as uint8 [C, 3]."""
        return np.asarray(self.colors, dtype=np.uint8)

    @classmethod
    def from_csv(cls, path: str | Path) -> ClassMap:
        """Reads a class list, one class a line, in the order of the class indices.

        Accepted lines: ``name,R G B``, ``name,R,G,B`` and ``name R G B``, with ``,`` or ``;``
        between the columns, optionally followed by a column ``confidence_threshold``. The first
        line may be a header, a line without digits; lines that begin with ``#`` are comments.

        Args:
            path: UTF-8 text file, with or without byte order mark.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line is malformed, or names, colours or thresholds are invalid.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"class mapping {path} does not exist")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"class mapping {path} is not UTF-8 text: {error}") from error
        rows = []
        header_seen = False
        for number, cells in _table(path, text):
            try:
                rows.append(_parse_row(cells))
            except ValueError as error:
                digits = any(char.isdigit() for cell in cells for char in cell)
                if not rows and not header_seen and not digits:
                    header_seen = True
                    continue
                raise ValueError(
                    f"class mapping {path}, line {number}: {error}; "
                    "expected 'name,R G B' with an optional third column confidence_threshold"
                ) from error
        if not rows:
            raise ValueError(f"class mapping {path} holds no class; expected lines 'name,R G B'")
        names, colors, thresholds = zip(*rows, strict=True)
        try:
            return cls(tuple(names), tuple(colors), tuple(thresholds))
        except ValueError as error:
            raise ValueError(f"class mapping {path}: {error}") from error

    def to_csv(self, path: str | Path) -> None:
        """Writes the class list in the form that ``from_csv`` reads."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["class_name", "class_color", "confidence_threshold"])
            for name, color, threshold in zip(
                self.names, self.colors, self.thresholds, strict=True
            ):
                shown = "" if threshold is None else threshold
                writer.writerow([name, " ".join(map(str, color)), shown])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, fit for JSON and for ``torch.load(weights_only=True)``."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "thresholds": list(self.thresholds),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClassMap:
        """Inverse of ``to_dict``."""
        colors = [(int(red), int(green), int(blue)) for red, green, blue in values["colors"]]
        return cls(tuple(values["names"]), tuple(colors), tuple(values["thresholds"]))

    def resolve_thresholds(
        self,
        default: float,
        *,
        classwise: bool = True,
        overrides: Mapping[str, float] | None = None,
    ) -> list[float]:
        """Decides the confidence threshold of every class.

        A class takes, in this order: its value in ``overrides``, its value in the class list, the
        V3 guide's value for its name, ``default``. The background's value is listed but never used:
        the background is not pseudo-labelled.

        Args:
            default: threshold of classes for which nothing else is known.
            classwise: False passes over the class list and the guide.
            overrides: thresholds by class name (any case) or by class index as text.

        Returns:
            One threshold per class.

        Raises:
            ValueError: ``overrides`` names an unknown class, or a threshold is not in 0-1.
        """
        chosen = [default] * self.num_classes
        if classwise:
            for index, (name, listed) in enumerate(zip(self.names, self.thresholds, strict=True)):
                guide = SALAK_THRESHOLDS.get(name.lower(), default)
                chosen[index] = guide if listed is None else listed
        for key, value in (overrides or {}).items():
            chosen[self.index_of(key)] = value
        for name, value in zip(self.names, chosen, strict=True):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"confidence threshold {value} of {name!r} is not between 0 and 1")
        return chosen

    def index_of(self, key: str) -> int:
        """Returns the index of a class given by name (any case) or by index as text."""
        names = [name.lower() for name in self.names]
        if key.strip().lower() in names:
            return names.index(key.strip().lower())
        if key.strip().isdigit() and int(key) < self.num_classes:
            return int(key)
        raise ValueError(f"unknown class {key!r}; the classes are {', '.join(self.names)}")


def _table(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yields line number and cells of every line that is neither empty nor a comment."""
    lines = text.splitlines()
    told = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    # Most lines, because a single name may hold a semicolon.
    delimiter = ";" if 2 * sum(";" in line for line in told) > len(told) else ","
    try:
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#"):
                yield number, cells
    except csv.Error as error:
        raise ValueError(f"class mapping {path} is not a CSV file: {error}") from error


def _parse_row(cells: Sequence[str]) -> tuple[str, tuple[int, int, int], float | None]:
    line = ",".join(cells)
    if len(cells) == 1:
        words = cells[0].split()
        name, color, rest = " ".join(words[:-3]), words[-3:], [""]
    elif len(cells[1].split()) == 3:
        name, color, rest = cells[0], cells[1].split(), [*cells[2:], ""]
    else:
        name, color, rest = cells[0], list(cells[1:4]), [*cells[4:], ""]
    if not name or len(color) != 3:
        raise ValueError(f"no class name and three colour values in {line!r}")
    if not all(value.isdigit() and int(value) <= 255 for value in color):
        raise ValueError(f"colour {' '.join(color)!r} is not three numbers in 0-255")
    if any(rest[1:]):
        raise ValueError(f"{rest[1]!r} follows the threshold {rest[0]!r}")
    try:
        threshold = float(rest[0].replace(",", ".")) if rest[0] else None
    except ValueError:
        raise ValueError(f"threshold {rest[0]!r} is not a number") from None
    red, green, blue = (int(value) for value in color)
    return name, (red, green, blue), threshold
