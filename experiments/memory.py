"""Out of memory: which option to lower, from what to what."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psutil
import torch
from ignite.engine import Engine

from experiments.learning_rate import SMALLEST_PART, equal_parts, scaled_learning_rate
from ignite_salak.handlers import Evaluation
from ignite_salak.ranks import rank_count
from ignite_salak.steps.device import resolve_precision

__all__ = [
    "MemorySettings",
    "OutOfMemory",
    "Shortage",
    "advice",
    "memory_advice",
    "read_shortage",
    "remedies",
]

Phase = Literal["building", "loading", "training", "evaluation"]

_HOST = "main memory"
_SIZE_STEP = 16  # view sizes are multiples of it
_GPU_SIGNS = ("out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
_HOST_SIGNS = (
    "DefaultCPUAllocator",
    "Unable to allocate",  # numpy, whose error a DataLoader worker cannot hand over as it is
    *("bad_alloc", "bad allocation"),  # C++, the second on Windows
    *("could not create a primitive\n", "could not create a memory object\n"),  # oneDNN
)
_SIZE = r"(\d[\d.]*) (bytes|[KMGTP]iB)"
_UNITS = {"bytes": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "PiB": 50}
# What a training step keeps for its backward pass, 256 x 256 pixels, output stride 16, three heads,
# fp32, in MiB a patch: resnet101 221, resnet50 170, efficientnet_lite0 170, mobilenet_v3_large 118,
# resnet34 93, resnet18 79 (measured with torch 2.15).
_SMALLER_BACKBONES = {
    "resnet101": "resnet50",
    "resnet50": "resnet18",
    "efficientnet_lite0": "resnet18",
    "mobilenet_v3_large": "resnet18",
    "resnet34": "resnet18",
}


class OutOfMemory(ValueError):
    """Memory ran out; the text says where, how much was missing and which option to lower."""


@dataclass(frozen=True)
class MemorySettings:
    """The options of a run that decide how much memory it takes.

    Attributes:
        batch_size: patches of either pool in one optimizer step, of all ranks together.
        learning_rate: of the encoder.
        optimizer: "sgd" or "adamw".
        scales: smallest and largest side of the views in pixels.
        output_stride: of the encoder, 8 or 16.
        precision: "fp32" or "bf16", "auto" settled.
        backbone: the encoder's name.
        grad_accumulation: parts into which every rank cuts its share of a batch.
        ranks: number of processes that share a batch.
        bf16_supported: whether the device computes in bf16.
        num_workers: processes that read patches.
        cache: "none", "disk" or "ram", where decoded patches are kept.
    """

    batch_size: int
    learning_rate: float
    optimizer: str
    scales: tuple[int, int]
    output_stride: int
    precision: str
    backbone: str
    grad_accumulation: int = 1
    ranks: int = 1
    bf16_supported: bool = False
    num_workers: int = 0
    cache: str = "none"

    @classmethod
    def of(cls, options: Any, device: torch.device) -> MemorySettings:
        """Takes the settings from the options of a training script.

        Args:
            options: has the groups schedule, augmentation, data, model and run.
            device: where the network is trained.
        """
        schedule, run = options.schedule, options.run
        return cls(
            batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            optimizer=schedule.optimizer,
            scales=options.augmentation.sizes(options.data.input_size),
            output_stride=options.model.output_stride,
            precision=resolve_precision(run.precision, device),
            backbone=options.model.backbone,
            grad_accumulation=schedule.grad_accumulation,
            ranks=rank_count(),
            bf16_supported=device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False),
            num_workers=run.num_workers,
            cache=options.data.cache,
        )

    @property
    def part(self) -> int:
        """Patches of either pool that are on the device at a time."""
        return self.batch_size // self.ranks // self.grad_accumulation


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
            known.append(f"{_text(self.asked)} were asked for")
        if self.total is not None and self.free is not None:
            known.append(f"{_text(self.free)} of {_text(self.total)} are free")
        return ", ".join(known)


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
    what = f"out of {_HOST}" if shortage.on_host else f"out of memory on {shortage.place}"
    sentences = [f"{what}{where}{doing}: {shortage}".rstrip(": ")]
    if shortage.held_by_others:
        sentences.append(
            f"Other processes hold {_text(shortage.held_by_others)} of it: end them (nvidia-smi "
            "lists them), or choose another device by --device cuda:N"
        )
    found = remedies(settings, phase, on_host=shortage.on_host)
    if found:
        sentences.append(f"Use the first of these that is enough: {'; '.join(found)}")
    else:
        sentences.append("No option is left to lower: it takes a device with more memory")
    return ". ".join(sentences)


def remedies(settings: MemorySettings, phase: Phase, *, on_host: bool = False) -> list[str]:
    """Lists the options that lower the memory of what the process was doing.

    Args:
        settings: what decides the memory of the run.
        phase: what the process was doing. Evaluation knows neither accumulation nor view sizes,
            and before the first iteration only the weights take memory.
        on_host: whether the memory of the machine ran out, which the readers share.

    Returns:
        Options with their old and new values, the mildest first; only those that apply.
    """
    candidates = (*(_READING if on_host else ()), *_NETWORK[phase])
    return [text for remedy in candidates if (text := remedy(settings)) is not None]


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


def _fewer_workers(settings: MemorySettings) -> str | None:
    count = settings.num_workers
    return f"--num-workers {count} -> {count // 2}" if count else None


def _cache_on_disk(settings: MemorySettings) -> str | None:
    return "--cache ram -> disk" if settings.cache == "ram" else None


def _more_parts(settings: MemorySettings) -> str | None:
    now = settings.grad_accumulation
    parts = equal_parts(settings.batch_size, settings.ranks, now + 1)
    return f"--grad-accumulation {now} -> {parts}" if parts else None


def _smaller_views(settings: MemorySettings) -> str | None:
    smallest, largest = settings.scales
    floor = -(-smallest // _SIZE_STEP) * _SIZE_STEP
    size = max(floor, largest * 5 // 6 // _SIZE_STEP * _SIZE_STEP)
    return f"--scale-max {largest} -> {size}" if size < largest else None


def _smaller_batch(settings: MemorySettings) -> str | None:
    if settings.part <= SMALLEST_PART:
        return None
    part = max(SMALLEST_PART, settings.part // 2)
    old, new = settings.batch_size, part * settings.grad_accumulation * settings.ranks
    rate = settings.learning_rate
    scaled = scaled_learning_rate(rate, old, new, settings.optimizer)
    return f"--batch-size {old} -> {new} with --learning-rate {rate:g} -> {scaled:.3g}"


def _coarser_features(settings: MemorySettings) -> str | None:
    return "--output-stride 8 -> 16" if settings.output_stride == 8 else None


def _half_precision(settings: MemorySettings) -> str | None:
    possible = settings.bf16_supported and settings.precision == "fp32"
    return "--precision fp32 -> bf16" if possible else None


def _smaller_backbone(settings: MemorySettings) -> str | None:
    smaller = _SMALLER_BACKBONES.get(settings.backbone)
    return f"--backbone {settings.backbone} -> {smaller}" if smaller else None


_Remedy = Callable[[MemorySettings], str | None]
_READING: tuple[_Remedy, ...] = (_fewer_workers, _cache_on_disk)
_ANYWHERE: tuple[_Remedy, ...] = (
    *(_smaller_batch, _coarser_features, _half_precision, _smaller_backbone),
)
_NETWORK: dict[Phase, tuple[_Remedy, ...]] = {
    "building": (_smaller_backbone,),
    "loading": (),
    "training": (_more_parts, _smaller_views, *_ANYWHERE),
    "evaluation": _ANYWHERE,
}


def _phase(error: BaseException, shortage: Shortage, device: torch.device, iteration: int) -> Phase:
    if shortage.on_host and (device.type == "cuda" or "DataLoader worker" in str(error)):
        return "loading"
    if iteration == 0:
        return "building"
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    evaluating = any(frame.f_globals.get("__name__") == Evaluation.__module__ for frame in frames)
    return "evaluation" if evaluating else "training"


def _read_size(before: str, text: str) -> int | None:
    found = re.search(before + _SIZE, text)
    return None if found is None else round(float(found[1]) * 2 ** _UNITS[found[2]])


def _text(size: int) -> str:
    """Writes a number of bytes in the largest unit of which there is one."""
    unit, bits = next(
        ((unit, bits) for unit, bits in reversed(_UNITS.items()) if size >= 2**bits), ("bytes", 0)
    )
    return f"{size / 2**bits:.4g} {unit}"


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
