"""Decoded patches kept in memory or on disk, one cache for all processes that read them.

A cache is a row of slots of equal size, for images one slot a patch and for masks one a mask. A
slot is a header and the pixels; the header holds a digest of what the pixels were made of (names,
sizes and times of the files) and a checksum of the pixels. What does not fit is decoded anew and
written over. So there is nothing to repair: a slot that two processes wrote at once, a write that
was cut off, a file overwritten in place, a new patch that moves all later ones by a slot, and a
file of foreign bytes are all slots that do not fit.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import psutil
import torch

from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.patches import PatchIndex, cache_folder

__all__ = ["PatchCache", "open_cache"]

_LOGGER = logging.getLogger(__name__)
_VERSION = 1
_KEY_BYTES = 12
_HEADER_BYTES = _KEY_BYTES + 4  # a CRC-32 follows the key
_SAMPLES = 16
_USABLE = 0.9  # share of the free room that a cache may take
_SHARED_MEMORY = Path("/dev/shm")
_FSCTL_SET_SPARSE = 0x900C4
_Item = dict[str, Any]


def open_cache(
    kind: Literal["none", "ram", "disk"],
    index: PatchIndex,
    reader: MaskReader | None,
    *,
    input_size: int | None = None,
) -> PatchCache | None:
    """Makes or opens the cache of a data root.

    Its slots have the most frequent shape of a few sample patches; patches of another shape are
    decoded each time. On disk it is kept between runs and shared by runs at the same time, in
    ``data.patches.cache_folder()``, where it grows as patches are read. In memory it takes its
    whole size at once, and lives as long as the run.

    Args:
        kind: where.
        index: all patches; each has a slot.
        reader: how masks are read; None where no mask will be.
        input_size: as in ``data.datasets.PatchDataset``.

    Returns:
        The cache, or None without one: for "none" and, with a warning, where it cannot be made.

    Raises:
        ValueError: there is no room for it.
    """
    if kind == "none":
        return None
    shape = _common_shape(index, input_size)
    if shape is None:
        _LOGGER.warning("--cache %s: no sample patch can be read, nothing is kept", kind)
        return None
    try:
        return PatchCache(kind, index, reader, input_size=input_size, shape=shape)
    except (OSError, RuntimeError, MemoryError) as error:
        _LOGGER.warning("--cache %s cannot be made, patches are decoded each time: %s", kind, error)
        return None


class PatchCache:
    """Decoded patches in slots; pickled for a process being spawned, it is the same cache there.

    Args:
        kind: where.
        index: all patches.
        reader: how masks are read, or None.
        input_size: as in ``data.datasets.PatchDataset``.
        shape: height and width in pixels of the patches that are kept.

    Raises:
        OSError: the file cannot be made.
        RuntimeError: the memory cannot be had.
        ValueError: there is no room.
    """

    def __init__(
        self,
        kind: Literal["ram", "disk"],
        index: PatchIndex,
        reader: MaskReader | None,
        *,
        input_size: int | None,
        shape: tuple[int, int],
    ) -> None:
        self.index = index
        self.reader = reader
        self.input_size = input_size
        made_of = [_VERSION, PIL.__version__, index.root.resolve(), input_size, shape]
        self._parts = {"image": _Part((3, *shape), np.arange(len(index)), repr(made_of))}
        if reader is not None and index.has_mask.any():
            made_of += [reader.classes.colors, reader.mask_format]
            self._parts["mask"] = _Part(shape, np.cumsum(index.has_mask) - 1, repr(made_of))
        total = sum(part.count * part.size for part in self._parts.values())
        task = f"{_amount(total)} for {len(index):,} patches of {shape[1]} x {shape[0]} pixels"
        make = _in_memory if kind == "ram" else _on_disk
        self._slots = make(self._parts, total, f"--cache {kind} needs {task}")

    def check(self, index: PatchIndex, reader: MaskReader | None, input_size: int | None) -> None:
        """Compares the cache with what a data set reads.

        Raises:
            ValueError: they differ, so that the cache would return other pixels.
        """
        fits = index is self.index and input_size == self.input_size
        if not fits or reader not in (None, self.reader):
            raise ValueError(
                "the cache is of another index, mask reader or input size than the data set: open "
                "one for each"
            )

    def item(self, patch: int, masked: bool, decode: Callable[[], _Item]) -> _Item:
        """Returns what ``decode`` would, without calling it where that is known.

        Args:
            patch: number of the patch in the index.
            masked: whether the item has a mask.
            decode: reads ``{"image": uint8 [3, H, W], "mask": uint8 [H, W]}``, "mask" only if
                ``masked``; what it raises is raised, and nothing is kept.
        """
        try:
            # Before decoding: should a file change meanwhile, its slot will not fit.
            keys = self._keys(patch, masked)
        except OSError:
            return decode()  # which says what is wrong with the file
        item = {}
        for name, key in keys.items():
            pixels = self._read(name, patch, key)
            if pixels is None:
                break
            item[name] = torch.from_numpy(pixels)
        else:
            return item
        item = decode()
        for name, key in keys.items():
            self._write(name, patch, key, item[name].numpy())
        return item

    def _keys(self, patch: int, masked: bool) -> dict[str, bytes]:
        image = self._stamp(self.index.image_path(patch))
        keys = {"image": _digest(image)}
        if masked:
            # The image's too: a mask is refused where its size is not that of the image.
            keys["mask"] = _digest(f"{image}\n{self._stamp(self.index.mask_path(patch))}")
        return keys

    def _stamp(self, path: Path) -> str:
        status = path.stat()
        name = path.relative_to(self.index.root).as_posix()
        return f"{name} {status.st_size} {status.st_mtime_ns}"

    def _read(self, name: str, patch: int, key: bytes) -> np.ndarray | None:
        part = self._parts[name]
        record = self._slots[name].read(int(part.slot_of[patch]))
        if record is None or record[:_HEADER_BYTES] != _header(key, record):
            return None
        return np.frombuffer(record, np.uint8, offset=_HEADER_BYTES).reshape(part.shape)

    def _write(self, name: str, patch: int, key: bytes, pixels: np.ndarray) -> None:
        part = self._parts[name]
        if pixels.shape == part.shape:
            record = bytearray(_HEADER_BYTES) + pixels.tobytes()
            record[:_HEADER_BYTES] = _header(key, record)
            self._slots[name].write(int(part.slot_of[patch]), record)


@dataclass(frozen=True)
class _Part:
    """Images or masks: shape of each, slot of every patch, and what all of them depend on."""

    shape: tuple[int, ...]
    slot_of: np.ndarray
    made_of: str

    @property
    def count(self) -> int:
        return int(self.slot_of[-1]) + 1

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return _HEADER_BYTES + math.prod(self.shape)


class _MemorySlots:
    """Records in shared memory; a copy pickled for a process being spawned is a view of it."""

    def __init__(self, count: int, size: int) -> None:
        # Tensor.share_memory_ would need the memory twice for a while, and write all of it.
        storage = torch.UntypedStorage._new_shared(count * size)
        self._records = torch.empty(0, dtype=torch.uint8).set_(storage).view(count, size)

    def read(self, slot: int) -> bytearray:
        return bytearray(self._records[slot].numpy())

    def write(self, slot: int, record: bytearray) -> None:
        self._records[slot] = torch.frombuffer(record, dtype=torch.uint8)


class _FileSlots:
    """Records in a file that each process opens for itself.

    It is read and written without a memory map: through one, a full disk, or a file that someone
    else cuts short, would end the process by a signal.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._file: io.FileIO | None = None
        self._process = os.getpid()
        self._writable = True
        _make_sparse(self._open())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def read(self, slot: int) -> bytearray | None:
        record = bytearray(self._size)
        try:
            file = self._open()
            file.seek(slot * self._size)
            return record if file.readinto(record) == self._size else None
        except OSError:
            return None

    def write(self, slot: int, record: bytearray) -> None:
        if not self._writable:
            return
        try:
            file = self._open()
            file.seek(slot * self._size)
            file.write(record)
        except OSError as error:
            self._writable = False
            _LOGGER.warning("no more patches are kept in %s: %s", self._path, error)

    def _open(self) -> io.FileIO:
        # A forked process would share its parent's file position.
        if self._file is None or self._process != os.getpid():
            self._file = io.FileIO(self._path, "r+", opener=_open_or_make)
            self._process = os.getpid()
        return self._file


_Slots = dict[str, _MemorySlots] | dict[str, _FileSlots]


def _in_memory(parts: dict[str, _Part], total: int, task: str) -> _Slots:
    remedy = "take --cache disk, --cache none, or a smaller --input-size"
    _check_room(total, psutil.virtual_memory().available, "of memory", task, remedy)
    if sys.platform == "linux" and _SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(_SHARED_MEMORY).free
        remedy = f"enlarge it (docker: --shm-size), or {remedy}"
        _check_room(total, free, f"of shared memory, {_SHARED_MEMORY},", task, remedy)
    slots = {name: _MemorySlots(part.count, part.size) for name, part in parts.items()}
    _LOGGER.info("decoded patches are kept in memory: %s", _amount(total))
    return slots


def _on_disk(parts: dict[str, _Part], total: int, task: str) -> _Slots:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        name: folder / f"decoded-{name}s-{_digest(part.made_of).hex()}.bin"
        for name, part in parts.items()
    }
    there = sum(_occupied(path) for path in files.values())
    remedy = (
        "set IGNITE_SALAK_CACHE to a folder on a larger disk, or take --cache none or a smaller "
        "--input-size"
    )
    free = shutil.disk_usage(folder).free
    _check_room(total - there, free, f"in {folder}", task, remedy)
    slots = {name: _FileSlots(path, parts[name].size) for name, path in files.items()}
    text = "decoded patches are kept in %s: up to %s, of which %s are there already"
    _LOGGER.info(text, folder, _amount(total), _amount(there))
    return slots


def _check_room(needed: int, free: int, place: str, task: str, remedy: str) -> None:
    if needed > _USABLE * free:
        raise ValueError(
            f"{task}, but {_amount(free)} {place} are free, a tenth of which must stay so: {remedy}"
        )


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _make_sparse(file: io.FileIO) -> None:
    """Lets a file on Windows have holes, as files elsewhere have; without, it only grows sooner."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        handle = ctypes.c_void_p(msvcrt.get_osfhandle(file.fileno()))
        done = ctypes.byref(ctypes.c_ulong())
        control = ctypes.windll.kernel32.DeviceIoControl
        control(handle, _FSCTL_SET_SPARSE, None, 0, None, 0, done, None)


def _common_shape(index: PatchIndex, input_size: int | None) -> tuple[int, int] | None:
    numbers = np.unique(np.linspace(0, len(index) - 1, _SAMPLES).astype(int))
    samples = PatchDataset(index, numbers, input_size=input_size)
    items = [samples[position] for position in range(len(samples))]
    shapes = Counter(item["image"].shape[1:] for item in items if "image" in item)
    if not shapes:
        return None
    height, width = shapes.most_common(1)[0][0]
    return height, width


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=_KEY_BYTES).digest()


def _header(key: bytes, record: bytearray) -> bytes:
    return key + zlib.crc32(memoryview(record)[_HEADER_BYTES:]).to_bytes(4, "little")


def _occupied(path: Path) -> int:
    """Bytes on disk, holes not counted where that can be told; 0 without a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    blocks = getattr(status, "st_blocks", None)  # of 512 bytes
    return status.st_size if blocks is None else blocks * 512


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
