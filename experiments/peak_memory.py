"""The most memory that a piece of work holds."""

from __future__ import annotations

import gc
import threading
from types import TracebackType

import psutil
import torch

__all__ = ["PeakMemory"]

_PAUSE = 0.02  # seconds between two looks at the memory of the process


class PeakMemory:
    """Measures the most memory that is held within the context.

    On CUDA: what tensors held, as the allocator counted it. Else: resident memory of this process,
    without its workers, looked at fifty times a second; what was freed before and never given back
    to the system counts as held before.

    Args:
        device: where the work is done.

    Attributes:
        before: bytes held at the start; the rest of the peak is what the work took.
        peak: most bytes held.
        reserved: most bytes that the CUDA allocator took from the device; None elsewhere.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.before = 0
        self.peak = 0
        self.reserved: int | None = None
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            self.before = self.peak = _resident()
            self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
            self.reserved = torch.cuda.max_memory_reserved(self.device)
        else:
            self._stop.set()
            self._watcher.join()

    def in_gib(self) -> dict[str, float | None]:
        """Returns "peak", "before", "own" (their difference) and "reserved" in GiB."""
        known = {"peak": self.peak, "before": self.before, "own": self.peak - self.before}
        reserved = None if self.reserved is None else self.reserved / 2**30
        return {**{name: size / 2**30 for name, size in known.items()}, "reserved": reserved}

    def _watch(self) -> None:
        while not self._stop.wait(_PAUSE):
            self.peak = max(self.peak, _resident())


def _resident() -> int:
    return psutil.Process().memory_info().rss
