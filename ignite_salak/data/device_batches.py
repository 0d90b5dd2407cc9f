"""Batches on the device, the next one copied while the present one is computed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor

__all__ = ["DeviceBatches"]


class DeviceBatches:
    """Passes batches on with their tensors on the device.

    On CUDA the copies run on a stream of their own, one batch ahead, and nothing waits for them but
    the kernels that read them; batches in page-locked memory make that overlap. On any other
    device the batches pass untouched and none is read ahead.

    Args:
        batches: nested mappings that hold tensors; iterated anew every time.
        device: where the tensors are to be.

    Example:
        >>> trainer.run(DeviceBatches(stream, device), max_epochs=1, epoch_length=50000)
    """

    def __init__(self, batches: Iterable[Any], device: torch.device | str) -> None:
        self.batches = batches
        self.device = torch.device(device)

    def __len__(self) -> int:
        """Batches of one pass.

        Raises:
            TypeError: the source has no length.
        """
        if not isinstance(self.batches, Sized):
            raise TypeError(f"{type(self.batches).__name__} has no len()")
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        if self.device.type != "cuda":
            yield from self.batches
            return
        side = _SideStream(self.device)
        for batch, copied in _one_ahead(map(side.copy, self.batches)):
            side.hand_over(batch, copied)
            yield batch


class _SideStream:
    """Copies to a CUDA device beside what is computed there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def copy(self, batch: Any) -> tuple[Any, torch.cuda.Event]:
        """Starts to copy a batch; the event tells when that is done."""
        with torch.cuda.stream(self.stream):
            moved = _with_tensors(batch, lambda tensor: tensor.to(self.device, non_blocking=True))
            return moved, self.stream.record_event()

    def hand_over(self, batch: Any, copied: torch.cuda.Event) -> None:
        """Lets the kernels that follow, and only those, wait for this copy, and no later one."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        # The memory belongs to the side stream, which must not reuse it before it was read.
        _with_tensors(batch, lambda tensor: tensor.record_stream(computing))


def _one_ahead(items: Iterable[Any]) -> Iterator[Any]:
    """Asks for an item before it gives out the one before; an error comes in its turn."""
    iterator = iter(items)
    waiting: list[Any] = []
    while True:
        try:
            waiting.append(next(iterator))
        except StopIteration:
            yield from waiting
            return
        except Exception:  # of whatever kind: raised again, behind the items before it
            yield from waiting
            raise
        if len(waiting) > 1:
            yield waiting.pop(0)


def _with_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _with_tensors(entry, change) for key, entry in value.items()}
    return value
