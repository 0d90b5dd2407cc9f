"""What is known of memory that ran out: from the error's text and from the device."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
import torch

__all__ = ["Shortage", "read_shortage", "size_text"]

_HOST = "main memory"
_GPU_SIGNS = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
_HOST_SIGNS = (
    "DefaultCPUAllocator",
    "Unable to allocate",  # numpy, whose error a DataLoader worker cannot hand over as it is
    *("bad_alloc", "bad allocation"),  # C++, the second on Windows
    *("could not create a primitive\n", "could not create a memory object\n"),  # oneDNN
)
_SIZE = r"(\d[\d.]*) (bytes|[KMGTP]iB)"
_UNITS = {"bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "PiB": 50}


@dataclass(frozen=True)
class Shortage:
    """What is known of memory that ran out; sizes in bytes, None where unknown.

    Attributes:
        place: the device, or "main memory".
        asked: what was asked for in vain.
        total: size of the memory.
        free: what was free.
        own: what this process held.
    """

    place: str
    asked: int | None = None
    total: int | None = None
    free: int | None = None
    own: int | None = None

    @property
    def on_host(self) -> bool:
        """Whether it was the memory of the machine, not that of a GPU."""
        return self.place == _HOST

    @property
    def held_by_others(self) -> int:
        """What other processes hold, where that is known and matters: over 1 GiB and an eighth."""
        if self.total is None or self.free is None or self.own is None:
            return 0
        others = self.total - self.free - self.own
        return others if others > max(2**30, self.total // 8) else 0

    def __str__(self) -> str:
        known = []
        if self.asked is not None:
            known.append(f"{size_text(self.asked)} were asked for")
        if self.total is not None and self.free is not None:
            known.append(f"{size_text(self.free)} of {size_text(self.total)} are free")
        return ", ".join(known)


def read_shortage(error: BaseException, device: torch.device) -> Shortage | None:
    """Reads how much memory was missing from the text of an error and from the device.

    Args:
        error: what was raised.
        device: where the network is.

    Returns:
        The shortage, or None where the error is none of missing memory.
    """
    text = f"{error}\n"
    on_host = isinstance(error, MemoryError) or any(sign in text for sign in _HOST_SIGNS)
    on_gpu = isinstance(error, torch.OutOfMemoryError) or any(sign in text for sign in _GPU_SIGNS)
    if not (on_host or on_gpu):
        return None
    asked = _read_size(r"allocate ", text)
    if on_host or device.type != "cuda":
        return Shortage(_HOST, asked, *_host_memory())
    now = _gpu_memory(device)
    phrases = (r"total capac\w+ of ", r"of which ", r"this process has ")
    told = [_read_size(phrase, text) for phrase in phrases]
    known = [there if size is None else size for size, there in zip(told, now, strict=True)]
    return Shortage(str(device), asked, *known)


def size_text(size: int) -> str:
    """Writes a number of bytes in the largest unit of which there is one."""
    unit, bits = next(
        ((unit, bits) for unit, bits in reversed(_UNITS.items()) if size >= 2**bits), ("bytes", 0)
    )
    return f"{size / 2**bits:.4g} {unit}"


def _read_size(before: str, text: str) -> int | None:
    found = re.search(before + _SIZE, text)
    return None if found is None else round(float(found[1]) * 2 ** _UNITS[found[2]])


def _gpu_memory(device: torch.device) -> tuple[int | None, int | None, int | None]:
    """Returns total, free and what this process holds, in bytes, of a CUDA device."""
    try:
        free, total = torch.cuda.mem_get_info(device)
        return total, free, torch.cuda.memory_reserved(device)
    except (RuntimeError, AssertionError):  # a device in trouble, or torch without CUDA
        return None, None, None


def _host_memory() -> tuple[int, int]:
    """Returns total and free main memory in bytes."""
    memory = psutil.virtual_memory()
    return memory.total, memory.available
