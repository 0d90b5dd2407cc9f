"""Out of memory: an error of one line, which says which option to lower."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from ignite.engine import Engine

from experiments.remedies import MemorySettings, Phase, remedies
from experiments.shortage import Shortage, read_shortage, size_text
from ignite_salak.handlers import Evaluation

__all__ = ["OutOfMemory", "advice", "memory_advice"]


class OutOfMemory(ValueError):
    """Memory ran out; the text says where, how much was missing and which option to lower."""


@contextmanager
def memory_advice(
    settings: MemorySettings, device: torch.device, trainer: Engine | None = None
) -> Iterator[None]:
    """Turns an out-of-memory error into one line that says which option to lower.

    Args:
        settings: what decides the memory of the run.
        device: where the network is.
        trainer: the running engine; None while the model is built.

    Raises:
        OutOfMemory: memory ran out, of the device or of the machine.

    Example:
        >>> with memory_advice(MemorySettings.of(options, device), device, trainer):
        ...     trainer.run(stream, max_epochs=1, epoch_length=total)
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        shortage = read_shortage(error, device)
        if shortage is None:
            raise
        iteration = 0 if trainer is None else trainer.state.iteration
        phase = _phase(error, shortage, device, iteration)
        raise OutOfMemory(advice(settings, shortage, phase, iteration)) from error


def advice(settings: MemorySettings, shortage: Shortage, phase: Phase, iteration: int = 0) -> str:
    """Says where memory ran out, how much was missing, and what to do, mildest first.

    Args:
        settings: what decides the memory of the run.
        shortage: what is known of it.
        phase: what the process was doing.
        iteration: the current one; 0 before the first.
    """
    where = f" at iteration {iteration}" if iteration else " before the first iteration"
    doing = {"loading": ", reading patches", "evaluation": ", evaluating"}.get(phase, "")
    what = f"out of {shortage.place}" if shortage.on_host else f"out of memory on {shortage.place}"
    sentences = [f"{what}{where}{doing}: {shortage}".rstrip(": ")]
    if shortage.held_by_others:
        sentences.append(
            f"Other processes hold {size_text(shortage.held_by_others)} of it: end them "
            "(nvidia-smi lists them), or choose another device by --device cuda:N"
        )
    found = remedies(settings, phase, on_host=shortage.on_host)
    if found:
        sentences.append(f"Use the first of these that is enough: {'; '.join(found)}")
    else:
        sentences.append("No option is left to lower: it takes a device with more memory")
    return ". ".join(sentences)


def _phase(error: BaseException, shortage: Shortage, device: torch.device, iteration: int) -> Phase:
    if shortage.on_host and (device.type == "cuda" or "DataLoader worker" in str(error)):
        return "loading"
    if iteration == 0:
        return "building"
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    evaluating = any(frame.f_globals.get("__name__") == Evaluation.__module__ for frame in frames)
    return "evaluation" if evaluating else "training"
