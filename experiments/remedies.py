"""Which options lower the memory that a run takes, from what to what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from experiments.learning_rate import SMALLEST_PART, equal_parts, scaled_learning_rate
from ignite_salak.ranks import rank_count
from ignite_salak.steps.device import resolve_precision

__all__ = ["MemorySettings", "Phase", "remedies"]

Phase = Literal["building", "loading", "training", "evaluation"]
"""What a process was doing when memory ran out."""

_SIZE_STEP = 16  # view sizes are multiples of it
# What a training step keeps for its backward pass, 256 x 256 pixels, output stride 16, three heads,
# fp32, in MiB a patch: resnet101 221, efficientnet_lite2 213, efficientnet_lite1 205, resnet50 170,
# efficientnet_lite0 170, mobilenet_v3_large 118, resnet34 93, resnet18 79 (measured, torch 2.15).
_SMALLER_BACKBONES = {
    "resnet101": "resnet50",
    "resnet50": "resnet18",
    "efficientnet_lite2": "efficientnet_lite0",
    "efficientnet_lite1": "efficientnet_lite0",
    "efficientnet_lite0": "resnet18",
    "mobilenet_v3_large": "resnet18",
    "resnet34": "resnet18",
}


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
