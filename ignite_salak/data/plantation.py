"""A seeded synthetic salak plantation in the real file layout: the built-in demo and test data.

The pictures mimic a drone looking straight down on a plantation in Java, with about the pixel
shares of the real data. Colours of the classes overlap on purpose: what tells them apart is
texture, shape and context.

Sizes are in pixels, points are (x, y), and fields are [H, W] with H rows and W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ignite_salak.classes import ClassMap
from ignite_salak.data.crowns import plant_betel, plant_snake_fruit
from ignite_salak.data.houses import build_houses
from ignite_salak.data.scene import Scene
from ignite_salak.data.terrain import (
    dig_ponds,
    lay_roads,
    lay_yards,
    paint_ground,
    paint_wheel_tracks,
    survey,
)

__all__ = ["SALAK_CLASSES", "Plantation", "make_plantation", "render_photo"]

SALAK_CLASSES = ClassMap(
    names=(
        "__background__",
        "Badan Air",
        "Bangunan",
        "Jalan",
        "Pohon Berinang",
        "Snake Fruit",
        "Tanah Terbuka",
    ),
    colors=(
        (0, 0, 0),
        (255, 50, 50),
        (255, 225, 50),
        (109, 255, 50),
        (50, 255, 167),
        (50, 167, 255),
        (109, 50, 255),
    ),
)
"""The seven classes of the real data, in the order of their indices; ``scene`` names these."""

_MASK_FORMATS = ("color", "index", "index3")
_MIN_SIZE = 64
_MAX_PHOTOS = 9999
_MAX_PATCHES_PER_SIDE = 1000
_FASTEST_PNG = 1


@dataclass(frozen=True)
class Plantation:
    """Where a synthetic plantation lies.

    Attributes:
        root: the folder that holds ``salak-1-1/images``, ``salak-1-1/masks``, ...
        classes: the class list of the masks.
        class_mapping: the same as a CSV file.
        labeled_files: text file with every photo that has masks, one ``DJI_0001.JPG`` a line.
    """

    root: Path
    classes: ClassMap
    class_mapping: Path
    labeled_files: Path


def make_plantation(
    root: Path,
    *,
    seed: int = 0,
    photos: int = 12,
    photo_size: int = 512,
    patch_size: int = 128,
    labeled_folders: int = 2,
    unlabeled_folders: int = 2,
    mask_format: str = "color",
) -> Plantation:
    """Writes patches, masks, class list and list of labelled photos.

    The files are ``ROOT/salak-1-1/images/DJI_0001_patch_000_000.png`` (row, then column of the
    patch), the same names under ``masks`` in the first ``labeled_folders`` folders,
    ``ROOT/class_mapping.csv`` and ``ROOT/labeled.txt``. The same arguments write the same bytes.

    Args:
        root: folder to write into; made if missing.
        seed: non-negative; another seed is another plantation.
        photos: number of photos, spread evenly over the folders.
        photo_size: height and width of a photo.
        patch_size: height and width of a patch; divides ``photo_size``.
        labeled_folders: number of folders with masks for every patch.
        unlabeled_folders: number of folders with images only.
        mask_format: "color" (RGB), "index" (one channel) or "index3" (three equal channels).

    Raises:
        ValueError: an argument is out of range, or ``root`` holds patches of another plantation.
    """
    _check_sizes(seed, photo_size, patch_size)
    _check_folders(photos, labeled_folders, unlabeled_folders)
    if mask_format not in _MASK_FORMATS:
        raise ValueError(f"mask_format {mask_format!r} is unknown: use {', '.join(_MASK_FORMATS)}")
    root = Path(root)
    folders = labeled_folders + unlabeled_folders
    homes = [photo * folders // photos for photo in range(photos)]
    kinds = [("images", "masks") if home < labeled_folders else ("images",) for home in homes]
    _refuse_strangers(root, homes, kinds, photo_size // patch_size)
    for photo, (home, kind) in enumerate(zip(homes, kinds, strict=True)):
        image, labels = render_photo(photo_size, photo_size, _photo_seed(seed, photo))
        layers = {"images": image, "masks": _encode_mask(labels, mask_format)}
        for name in kind:
            folder = root / f"salak-1-{home + 1}" / name
            _write_patches(folder, _photo_name(photo), layers[name], patch_size)
    return _write_lists(root, [_photo_name(p) for p in range(photos) if len(kinds[p]) == 2])


def render_photo(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one photo of a plantation and its true classes.

    A pure function of its arguments. Plants and houses keep their size in pixels: a larger photo
    shows more ground, not more detail.

    Args:
        height: rows H, at least 64.
        width: columns W, at least 64.
        seed: non-negative.

    Returns:
        Image uint8 [H, W, 3] and class indices uint8 [H, W].

    Raises:
        ValueError: a size is too small or the seed is negative.
    """
    for name, value in (("height", height), ("width", width)):
        if value < _MIN_SIZE:
            raise ValueError(f"{name} {value} is too small: use at least {_MIN_SIZE}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: use 0 or more")
    scene = survey(np.random.default_rng(seed), height, width)
    lay_yards(scene)
    roads = lay_roads(scene)
    dig_ponds(scene)
    paint_ground(scene)
    paint_wheel_tracks(scene, roads)
    build_houses(scene)
    plant_snake_fruit(scene)
    plant_betel(scene)
    return _expose(scene), scene.labels


def _expose(scene: Scene) -> np.ndarray:
    """Cloud shadows, exposure, white balance and noise of the camera: uint8 [H, W, 3]."""
    rng, (height, width) = scene.rng, scene.size
    clouds = 0.8 + 0.35 * scene.noise(0.4 * min(height, width))
    balance = rng.uniform(0.93, 1.07, 3) * rng.uniform(0.85, 1.2)
    grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(rng.uniform(2, 4))
    image = scene.image * clouds[..., None] * balance.astype(np.float32) + grain
    return np.clip(image + np.float32(0.5), 0, 255).astype(np.uint8)


# ---- files -------------------------------------------------------------------------------------


def _check_sizes(seed: int, photo_size: int, patch_size: int) -> None:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: use 0 or more")
    if photo_size < _MIN_SIZE:
        raise ValueError(f"photo_size {photo_size} is too small: use at least {_MIN_SIZE}")
    if patch_size < 1 or photo_size % patch_size:
        raise ValueError(
            f"patch_size {patch_size} does not divide photo_size {photo_size}: "
            "use a divisor, such as 128 for 512"
        )
    if photo_size // patch_size > _MAX_PATCHES_PER_SIDE:
        raise ValueError(
            f"patch_size {patch_size} cuts a photo of {photo_size} pixels into more than "
            f"{_MAX_PATCHES_PER_SIDE} rows: use larger patches"
        )


def _check_folders(photos: int, labeled_folders: int, unlabeled_folders: int) -> None:
    for name, value in (
        ("labeled_folders", labeled_folders),
        ("unlabeled_folders", unlabeled_folders),
    ):
        if value < 0:
            raise ValueError(f"{name} {value} is negative: use 0 or more")
    folders = labeled_folders + unlabeled_folders
    if folders == 0:
        raise ValueError("labeled_folders 0 and unlabeled_folders 0: at least one must be positive")
    if not folders <= photos <= _MAX_PHOTOS:
        raise ValueError(
            f"photos {photos} do not fit {folders} folders: "
            f"use between {folders} (one a folder) and {_MAX_PHOTOS}"
        )


def _photo_seed(seed: int, photo: int) -> int:
    return int(np.random.SeedSequence((seed, photo)).generate_state(1, np.uint64)[0])


def _photo_name(photo: int) -> str:
    return f"DJI_{photo + 1:04d}"


def _patch_name(photo: str, row: int, column: int) -> str:
    return f"{photo}_patch_{row:03d}_{column:03d}.png"


def _refuse_strangers(
    root: Path, homes: Sequence[int], kinds: Sequence[Sequence[str]], side: int
) -> None:
    """Raises if patches would stay behind that this plantation does not overwrite."""
    planned = {
        root / f"salak-1-{home + 1}" / name / _patch_name(_photo_name(photo), row, column)
        for photo, home in enumerate(homes)
        for name in kinds[photo]
        for row in range(side)
        for column in range(side)
    }
    strangers = sorted(set(root.glob("salak-1-*/*/*.png")) - planned)
    if strangers:
        raise ValueError(
            f"{root} holds {len(strangers)} patches of another plantation, such as "
            f"{strangers[0]}: choose an empty folder"
        )


def _encode_mask(labels: np.ndarray, mask_format: str) -> np.ndarray:
    """Class indices uint8 [H, W] to uint8 [H, W] or [H, W, 3] as stored."""
    if mask_format == "color":
        return SALAK_CLASSES.palette[labels]
    return labels if mask_format == "index" else np.repeat(labels[..., None], 3, axis=2)


def _write_patches(folder: Path, photo: str, layer: np.ndarray, patch_size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for top in range(0, layer.shape[0], patch_size):
        for left in range(0, layer.shape[1], patch_size):
            patch = np.ascontiguousarray(layer[top : top + patch_size, left : left + patch_size])
            path = folder / _patch_name(photo, top // patch_size, left // patch_size)
            unfinished = path.with_suffix(".tmp")
            Image.fromarray(patch).save(unfinished, "PNG", compress_level=_FASTEST_PNG)
            unfinished.replace(path)


def _write_lists(root: Path, labeled: Sequence[str]) -> Plantation:
    plantation = Plantation(root, SALAK_CLASSES, root / "class_mapping.csv", root / "labeled.txt")
    unfinished = root / "lists.tmp"
    SALAK_CLASSES.to_csv(unfinished)
    unfinished.replace(plantation.class_mapping)
    names = "".join(f"{photo}.JPG\n" for photo in labeled)
    unfinished.write_text(names, encoding="utf-8", newline="\n")
    unfinished.replace(plantation.labeled_files)
    return plantation
