"""Options of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.options import (
    AugmentationOptions,
    DataOptions,
    LossOptions,
    ModelOptions,
    ScheduleOptions,
)

__all__ = ["MachineOptions", "MeasuringOptions", "NetworkOptions", "Options"]


@dataclass
class NetworkOptions(ModelOptions):
    """Model."""

    pretrained: bool = False
    """Start from ImageNet weights; the speed is the same."""


@dataclass
class MachineOptions:
    """Machine; all but the device, the threads and the seed are of ours alone."""

    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of our network; auto is bf16 on CUDA where it can, else fp32."""
    compile: bool = False
    """Compile our network by torch.compile."""
    num_workers: int = 4
    """Processes that read our patches, at most one per core."""
    threads: int = 0
    """CPU threads of torch (0: torch's own choice)."""


@dataclass
class MeasuringOptions:
    """Measuring."""

    steps: int = 50
    """Measured training steps in each repetition; on a GPU many more than workers read ahead."""
    warmup_steps: int = 10
    """Steps before them, not measured."""
    repetitions: int = 3
    """Repetitions, ours and the plain loop in turns, after one that is not measured."""
    eval_patches: int = 256
    """Patches judged in each repetition, some of them several times if there are fewer."""
    plain: bool = True
    """Measure the plain loop too."""
    growth: bool = True
    """Measure how the cost grows with batch and image size."""
    batch_sizes: tuple[int, ...] = (4, 8, 16)
    """Batch sizes of that, at the smallest view."""
    image_sizes: tuple[int, ...] = (256, 320, 384)
    """Sides of patches and views of that in pixels, multiples of 16, at --batch-size."""
    growth_steps: int = 5
    """Measured training steps for each of them."""
    patch_size: int = 256
    """Side of the patches in pixels that are made where no --data-root is given."""
    eval_every: int = 500
    """Iterations between evaluations in the projected schedule of --num-steps."""
    save_latest_every: int = 100
    """Iterations between checkpoints in the projected schedule."""
    validation_patches: int = 2571
    """Validation patches in the projected schedule; we judge as many training patches."""
    training_patches: int = 10285
    """Training patches in the projected schedule, all of which the plain loop judges."""
    peak_tflops: float | None = None
    """Arithmetic peak of the device, for its utilisation; known for an H200 in bf16."""
    output: Path = Path("benchmark.json")
    """File for all numbers."""

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is."""
        for name in ("steps", "repetitions", "eval_patches", "growth_steps", "eval_every"):
            if getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} {getattr(self, name)} is not at least 1")
        if self.save_latest_every < 1 or self.warmup_steps < 0:
            raise ValueError(
                f"--save-latest-every {self.save_latest_every} and --warmup-steps "
                f"{self.warmup_steps}: expected at least 1 and 0"
            )
        for size in self.image_sizes:
            if size < 16 or size % 16:
                raise ValueError(f"--image-sizes {size} is not a positive multiple of 16")
        if any(size < 2 for size in self.batch_sizes):
            raise ValueError(f"--batch-sizes {min(self.batch_sizes)} is not at least 2")
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ValueError(f"--peak-tflops {self.peak_tflops} is not positive")
        if not self.output.resolve().parent.is_dir():
            raise FileNotFoundError(f"--output {self.output}: its folder does not exist; make it")


@dataclass
class Options:
    """Measures the speed of training and evaluation, ours and that of a plain loop.

    The defaults are V3's, on a GPU; on a CPU, lower --steps and --repetitions, and --backbone,
    --scale-min or --batch-sizes too if there is little time. --config FILE takes the options of an
    earlier benchmark.json; --debug shows the traceback of an error.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: NetworkOptions = field(default_factory=NetworkOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    measuring: MeasuringOptions = field(default_factory=MeasuringOptions)
