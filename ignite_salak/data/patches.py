"""A data root -> PatchIndex: every patch with its folder, source image and mask, if any.

Layout: ``ROOT/<folder>/images`` and, where there are masks, ``ROOT/<folder>/masks``; folders may be
nested, and ``images`` and ``masks`` may lie directly under ROOT. A mask has its image's stem,
optionally followed by ``_mask``. ``DJI_0462_patch_013_000.png`` is a patch of the source image
``DJI_0462``; a file without ``_patch_RRR_CCC`` is its own source image.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

__all__ = [
    "CACHE_ERRORS",
    "IMAGE_SUFFIXES",
    "PatchIndex",
    "cache_folder",
    "scan_patches",
    "write_cache",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

CACHE_ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)
"""What reading a damaged cache file raises."""

_PATCH_NAME = re.compile(r"(?P<source>.+)_patch_\d+_\d+$", re.IGNORECASE)
_CACHE_VERSION = 1
_SETTLED_SECONDS = 2.0  # a folder changed this recently may change again within one clock tick


@dataclass(frozen=True)
class PatchIndex:
    """All patches under one root, sorted by folder and name.

    Attributes:
        root: the data root.
        folders: folders relative to the root, "" for the root itself, POSIX separators.
        image_folders: where each folder's images lie, relative to the root.
        mask_folders: where each folder's masks lie, relative to the root; "" for none.
        sources: (folder position, name) of every source image.
        images: file name of every patch's image, NumPy text [N].
        masks: file name of every patch's mask, "" where there is none, NumPy text [N].
        folder_ids: position in ``folders`` of every patch, int32 [N].
        source_ids: position in ``sources`` of every patch, int32 [N].
        orphan_masks: number of masks without an image.
    """

    root: Path
    folders: tuple[str, ...]
    image_folders: tuple[str, ...]
    mask_folders: tuple[str, ...]
    sources: tuple[tuple[int, str], ...]
    images: np.ndarray
    masks: np.ndarray
    folder_ids: np.ndarray
    source_ids: np.ndarray
    orphan_masks: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def has_mask(self) -> np.ndarray:
        """Bool [N]."""
        return self.masks != ""

    def image_path(self, patch: int) -> Path:
        """Path of a patch's image."""
        folder = self.image_folders[int(self.folder_ids[patch])]
        return self.root / folder / str(self.images[patch])

    def mask_path(self, patch: int) -> Path:
        """Path of a patch's mask.

        Raises:
            ValueError: the patch has none.
        """
        if not self.masks[patch]:
            raise ValueError(f"{self.image_path(patch)} has no mask")
        folder = self.mask_folders[int(self.folder_ids[patch])]
        return self.root / folder / str(self.masks[patch])

    def patch_name(self, patch: int) -> str:
        """Folder and name of a patch's image, without suffix, as lists and checkpoints name it."""
        stem = str(self.images[patch]).rpartition(".")[0]
        return f"{self.folders[int(self.folder_ids[patch])]}/{stem}".lstrip("/")

    def source_name(self, source: int) -> str:
        """Folder and name of a source image, for messages."""
        folder, name = self.sources[source]
        return f"{self.folders[folder]}/{name}".lstrip("/")


def scan_patches(root: Path, *, cache: bool = True) -> PatchIndex:
    """Lists the patches under a data root; reads no pixel.

    The result is kept in the user's cache folder and used again while no folder under the root has
    changed.

    Args:
        root: the data root.
        cache: False neither reads nor writes the cache.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: two images of one folder share a stem, or two folders differ only in case.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"data root {root} is not a folder")
    folders = sorted(_image_folders(root))
    if not folders:
        raise FileNotFoundError(
            f"data root {root} holds no folder named 'images'; expected {root}/<folder>/images and "
            f"masks, or {root}/images and masks"
        )
    stamp = _stamp(root, folders)
    cache_file = cache_folder() / f"patches-{_digest(str(root.resolve()))}.npz"
    index = _load(cache_file, root, stamp) if cache else None
    if index is None:
        started = time.time()
        index = _scan(root, folders)
        if cache and _last_change(root, folders) < started - _SETTLED_SECONDS:
            _store(cache_file, index, stamp)
    return index


def cache_folder() -> Path:
    """The user's cache folder for this library; IGNITE_SALAK_CACHE names another."""
    return Path(
        os.environ.get("IGNITE_SALAK_CACHE") or platformdirs.user_cache_dir("ignite_salak", False)
    )


def write_cache(path: Path, arrays: dict[str, Any]) -> None:
    """Writes arrays whole or not at all; a cache that cannot be written is only slower."""
    temporary: Path | None = None
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            temporary = Path(file.name)
            np.savez(file, **arrays)
        temporary.replace(path)
        return
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()


def _child_folder(folder: Path, kind: str) -> Path | None:
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.name.lower() == kind and entry.is_dir()]
    if len(found) > 1:
        raise ValueError(f"{folder} holds {' and '.join(sorted(found))}; keep only one")
    return folder / found[0] if found else None


def _image_folders(folder: Path, relative: str = "") -> Iterator[str]:
    """Yields every folder that has an ``images`` folder, relative to the root."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    for name in names:
        if name.lower() == "images":
            yield relative
        elif name.lower() != "masks":
            yield from _image_folders(folder / name, f"{relative}/{name}".lstrip("/"))


def _watched(root: Path, folders: list[str]) -> list[Path]:
    watched = {root}
    for relative in folders:
        folder = root / relative
        watched.update([folder, *(p for p in folder.parents if root in p.parents)])
        for kind in ("images", "masks"):
            child = _child_folder(folder, kind)
            if child is not None:
                watched.add(child)
    return sorted(watched)


def _stamp(root: Path, folders: list[str]) -> str:
    lines = [f"{path} {path.stat().st_mtime_ns}" for path in _watched(root, folders)]
    return _digest("\n".join([str(_CACHE_VERSION), *lines]))


def _last_change(root: Path, folders: list[str]) -> float:
    return max(path.stat().st_mtime for path in _watched(root, folders))


def _list_images(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "."]
    return sorted(n for n in names if os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES)  # noqa: PTH122


def _by_stem(folder: Path | None) -> dict[str, str]:
    stems: dict[str, str] = {}
    for name in _list_images(folder):
        stem = os.path.splitext(name)[0]  # noqa: PTH122 - ten times as fast as Path on 370,000 names
        if stem in stems:
            raise ValueError(
                f"{folder}: {stems[stem]} and {name} have the same stem; keep only one"
            )
        stems[stem] = name
    return stems


def _relative(root: Path, folder: Path | None) -> str:
    return "" if folder is None else folder.relative_to(root).as_posix()


def _scan(root: Path, folders: list[str]) -> PatchIndex:
    image_folders = [_child_folder(root / relative, "images") for relative in folders]
    mask_folders = [_child_folder(root / relative, "masks") for relative in folders]
    images: list[str] = []
    masks: list[str] = []
    folder_ids: list[int] = []
    source_ids: list[int] = []
    sources: dict[tuple[int, str], int] = {}
    orphans = 0
    for folder_id in range(len(folders)):
        stems = _by_stem(image_folders[folder_id])
        mask_of = _by_stem(mask_folders[folder_id])
        used = 0
        for stem, name in stems.items():
            mask = mask_of.get(stem) or mask_of.get(f"{stem}_mask", "")
            used += bool(mask)
            match = _PATCH_NAME.match(stem)
            source = (folder_id, match["source"] if match else stem)
            images.append(name)
            masks.append(mask)
            folder_ids.append(folder_id)
            source_ids.append(sources.setdefault(source, len(sources)))
        orphans += len(mask_of) - used
    if not images:
        raise FileNotFoundError(
            f"data root {root} holds no image ({', '.join(IMAGE_SUFFIXES)}) in any 'images' folder"
        )
    return PatchIndex(
        root=root,
        folders=tuple(folders),
        image_folders=tuple(_relative(root, folder) for folder in image_folders),
        mask_folders=tuple(_relative(root, folder) for folder in mask_folders),
        sources=tuple(sources),
        images=np.asarray(images),
        masks=np.asarray(masks),
        folder_ids=np.asarray(folder_ids, dtype=np.int32),
        source_ids=np.asarray(source_ids, dtype=np.int32),
        orphan_masks=orphans,
    )


def _store(path: Path, index: PatchIndex, stamp: str) -> None:
    arrays = {
        "stamp": np.asarray(stamp),
        "folders": np.asarray(index.folders, dtype=str),
        "image_folders": np.asarray(index.image_folders, dtype=str),
        "mask_folders": np.asarray(index.mask_folders, dtype=str),
        "source_folders": np.asarray([folder for folder, _ in index.sources], dtype=np.int32),
        "source_names": np.asarray([name for _, name in index.sources], dtype=str),
        "images": index.images,
        "masks": index.masks,
        "folder_ids": index.folder_ids,
        "source_ids": index.source_ids,
        "orphan_masks": np.asarray(index.orphan_masks),
    }
    write_cache(path, arrays)


def _load(path: Path, root: Path, stamp: str) -> PatchIndex | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["stamp"]) != stamp:
                return None
            source_folders = stored["source_folders"].tolist()
            return PatchIndex(
                root=root,
                folders=tuple(stored["folders"].tolist()),
                image_folders=tuple(stored["image_folders"].tolist()),
                mask_folders=tuple(stored["mask_folders"].tolist()),
                sources=tuple(zip(source_folders, stored["source_names"].tolist(), strict=True)),
                images=stored["images"],
                masks=stored["masks"],
                folder_ids=stored["folder_ids"],
                source_ids=stored["source_ids"],
                orphan_masks=int(stored["orphan_masks"]),
            )
    except CACHE_ERRORS:
        return None
