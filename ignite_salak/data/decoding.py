"""A file -> uint8 image or class-index mask: every format, every refusal."""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ignite_salak.classes import IGNORE_INDEX, ClassMap

__all__ = ["MASK_FORMATS", "BadFileError", "MaskReader", "read_image", "read_photo"]

MASK_FORMATS = ("auto", "color", "index")

# Of 16-bit RGB Pillow hands out the upper halves without a word: nearly black for cameras that use
# 10 or 12 of the bits.
_SIXTEEN_BITS = re.compile(r"\b(RGB[AXa]?|LA|CMYK);16")

# Pillow's parsers of broken headers raise more than the documented OSError.
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr", "La", "RGBa")


class BadFileError(ValueError):
    """A file cannot be used; the message starts with its path."""


def read_image(path: Path) -> np.ndarray:
    """Decodes an image file.

    Pixels that the file marks as fully transparent become black, which the library takes for
    "no image content". A rotation noted in EXIF is carried out.

    Args:
        path: PNG, JPEG or TIFF with 8 bits a channel; grey, palette and CMYK images become RGB.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        BadFileError: the file is missing, empty, truncated, no image, or has over 8 bits a channel.
    """
    return read_photo(path)[0]


def read_photo(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Does what ``read_image`` does, and tells black from transparent.

    Args:
        path: see ``read_image``.

    Returns:
        uint8 [H, W, 3], RGB; and which pixels are not fully transparent, bool [H, W], or None where
        the file knows no transparency.

    Raises:
        BadFileError: see ``read_image``.
    """
    image = _open(path)
    if image.mode == "CMYK":
        return np.asarray(image.convert("RGB")), None
    if image.mode not in _EIGHT_BIT_MODES:
        raise BadFileError(
            f"{path}: {image.mode} pixels (over 8 bits a channel); convert the image to 8-bit RGB"
        )
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3] * (rgba[..., 3:] > 0), rgba[..., 3] > 0
    return np.asarray(image.convert("RGB")), None


@dataclass(frozen=True)
class MaskReader:
    """Decodes masks to class indices.

    One-channel files hold class indices, and so do RGB files whose three channels are equal, unless
    their grey values are colours of the class list; other RGB files hold colours of the class list.
    A palette file holds class indices, unless its palette shows the class list's colours in another
    order; 255 means ignore in either case.

    Attributes:
        classes: the class list.
        mask_format: what three equal channels mean that could be either: "index", or "color" (then
            they are indices only if at least one of them is a class besides the background and
            they are no colours of the class list). ``resolve`` settles it for a data set.
    """

    classes: ClassMap
    mask_format: str = "index"

    def __post_init__(self) -> None:
        if self.mask_format not in ("color", "index"):
            raise ValueError(f"mask format {self.mask_format!r} is neither 'color' nor 'index'")

    @classmethod
    def resolve(cls, classes: ClassMap, mask_format: str, samples: list[Path]) -> MaskReader:
        """Settles "auto" from sample masks: one file in colours makes the data set a colour one.

        Only that tells a black mask of class 0 from a black mask of an unlisted colour.

        Args:
            classes: the class list.
            mask_format: "auto", "color" or "index".
            samples: masks to look at; unreadable ones are passed over.

        Raises:
            ValueError: ``mask_format`` is none of the three.
        """
        if mask_format not in MASK_FORMATS:
            raise ValueError(f"mask format {mask_format!r} is none of {', '.join(MASK_FORMATS)}")
        if mask_format != "auto":
            return cls(classes, mask_format)
        for path in samples:
            try:
                pixels = np.asarray(_open(path))
            except BadFileError:
                continue
            if pixels.ndim == 3 and pixels.shape[2] >= 3 and not _channels_equal(pixels):
                return cls(classes, "color")
        return cls(classes, "index")

    def read(self, path: Path) -> tuple[np.ndarray, Counter[tuple[int, int, int]]]:
        """Decodes one mask.

        Returns:
            Class indices uint8 [H, W] with 255 where the class is unknown or to be ignored, and the
            number of pixels of every colour that the class list lacks.

        Raises:
            BadFileError: the file is missing, empty, truncated, no image, or holds an index that is
                neither a class nor 255.
        """
        return self.decode(_open(path), path)

    def decode(
        self, image: Image.Image, path: Path
    ) -> tuple[np.ndarray, Counter[tuple[int, int, int]]]:
        """Does what ``read`` does, with an image that is open already.

        What a value means depends on which values there are, not on where or how often: the
        distinct values of a large mask can be decoded alone.

        Args:
            image: any mode that a mask may have, [H, W].
            path: the file, for messages.

        Raises:
            BadFileError: it holds an index that is neither a class nor 255.
        """
        if image.mode in ("RGB", "RGBA"):
            pixels = np.asarray(image.convert("RGB"))
            if not _channels_equal(pixels) or not self._grey_is_index(pixels[..., 0]):
                return self._from_colors(pixels)
            return self._from_indices(pixels[..., 0], path), Counter()
        if image.mode == "P" and self._palette_is_colors(image):
            mask, _ = self._from_colors(np.asarray(image.convert("RGB")))
            mask[np.asarray(image) == IGNORE_INDEX] = IGNORE_INDEX
            return mask, Counter()
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
            raise BadFileError(
                f"{path}: a mask with {image.mode} pixels; expected RGB colours or class indices"
            )
        return self._from_indices(np.asarray(image), path), Counter()

    def _grey_is_index(self, grey: np.ndarray) -> bool:
        values = np.unique(grey)
        if self.mask_format == "index" and (values < self.classes.num_classes).all():
            return True
        if all((int(value),) * 3 in self.classes.colors for value in values):
            return False
        if self.mask_format == "index":
            return True
        valid = (values < self.classes.num_classes) | (values == IGNORE_INDEX)
        return bool(valid.all() and ((values > 0) & (values < IGNORE_INDEX)).any())

    def _palette_is_colors(self, image: Image.Image) -> bool:
        """Whether a palette file's indices differ from the class list's but its colours fit."""
        palette = np.asarray(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        values = np.flatnonzero(image.histogram()).tolist()
        used = [value for value in values if value != IGNORE_INDEX]
        shown = {value: tuple(palette[value].tolist()) for value in used if value < len(palette)}
        colors = dict(enumerate(self.classes.colors))
        if all(shown.get(value) == colors.get(value) for value in used):
            return False
        return all(shown.get(value) in self.classes.colors for value in used)

    def _from_indices(self, values: np.ndarray, path: Path) -> np.ndarray:
        bad = (values < 0) | ((values >= self.classes.num_classes) & (values != IGNORE_INDEX))
        if bad.any():
            raise BadFileError(
                f"{path}: class index {int(values[bad].flat[0])} is out of range: the class list "
                f"has {self.classes.num_classes} classes (0-{self.classes.num_classes - 1}; "
                f"{IGNORE_INDEX} means ignore)"
            )
        return values.astype(np.uint8)

    def _from_colors(self, pixels: np.ndarray) -> tuple[np.ndarray, Counter[tuple[int, int, int]]]:
        codes = _color_codes(pixels)
        order = np.argsort(_color_codes(self.classes.palette))
        listed = _color_codes(self.classes.palette)[order]
        position = np.searchsorted(listed, codes).clip(max=len(listed) - 1)
        known = listed[position] == codes
        mask = np.where(known, order[position], IGNORE_INDEX).astype(np.uint8)
        unknown: Counter[tuple[int, int, int]] = Counter()
        if not known.all():
            for code, count in zip(*np.unique(codes[~known], return_counts=True), strict=True):
                unknown[(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)] = int(count)
        return mask, unknown


def _color_codes(pixels: np.ndarray) -> np.ndarray:
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _channels_equal(pixels: np.ndarray) -> bool:
    return bool(
        (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
    )


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            deep = _SIXTEEN_BITS.search(str(image.tile))
            image.load()
            # Not ImageOps.exif_transpose: it also writes the EXIF anew, which fails on odd tags.
            turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
            image = image.copy() if turn is None else image.transpose(turn)
    except _PILLOW_ERRORS as error:
        raise BadFileError(f"{path}: {_reason(path, error)}") from error
    if deep:
        raise BadFileError(f"{path}: 16 bits a channel; convert the image to 8-bit RGB")
    return image


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "the file does not exist"
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "the file is no image"
    return f"the file cannot be decoded ({error})"
