"""Option groups of V4 alone: each makes the objects that its flags describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from experiments.data import RunData
from ignite_salak.alignment import DistributionAlignment
from ignite_salak.augment import RandomColors
from ignite_salak.data.balance import clipped_weights
from ignite_salak.ranks import is_first
from ignite_salak.steps.mean_teacher import ramp_up
from ignite_salak.symmetry import SYMMETRIES, RandomSymmetries
from ignite_salak.thresholds import (
    ExpectedThresholds,
    FixedThresholds,
    QuantileThresholds,
    Thresholds,
)

__all__ = ["BalanceOptions", "StrongOptions", "TeacherOptions"]


@dataclass
class TeacherOptions:
    """Pseudo-labels."""

    st_loss_weight: float = 1.0
    """Factor of the pseudo-labels' loss; 0 switches self-training off."""
    st_ramp_iters: int = 800
    """Iterations over which that factor grows."""
    quantile_thresholds: bool = True
    """Thresholds that keep the same share of every class; otherwise --confidence-threshold."""
    confidence_threshold: float = 0.9
    """Threshold of all classes without --quantile-thresholds."""
    keep_share: tuple[float, float] = (0.5, 0.8)
    """Share of the pixels of every class that is kept, at the start and at the end."""
    keep_share_of: Literal["predicted", "expected"] = "expected"
    """What --keep-share is a share of: the pixels predicted as a class, or as many as it has in the
    labelled photos."""
    threshold_start: float = 0.6
    """Where quantile thresholds start; high, only the easiest class passes at first."""
    threshold_bounds: tuple[float, float] = (0.4, 0.99)
    """Smallest and largest quantile threshold."""
    threshold_decay: float = 0.999
    """Decay of the average over batches that quantile thresholds follow."""
    teacher_views: int = 1
    """Views that the teacher votes on, flipped and turned at random; 0 for the student's own."""
    alignment: float = 1.0
    """How far votes are shifted towards the classes' shares of the labelled photos, 0 to 1."""
    doubt_weights: bool = False
    """Weigh pseudo-labels less where the teacher's heads disagree."""

    def advice(self) -> str:
        """Says what lets more pixels become pseudo-labels."""
        if self.quantile_thresholds:
            return "raise --keep-share, or lower --threshold-bounds"
        return "lower --confidence-threshold"

    def print_hints(self, steps: int) -> None:
        """Prints which options do less than they seem to, in a run of so many steps."""
        if self.st_loss_weight == 0 or not is_first():
            return
        if steps < self.st_ramp_iters:
            print(
                f"hint: --st-ramp-iters {self.st_ramp_iters} is longer than the run; pseudo-labels "
                f"reach {ramp_up(steps, self.st_ramp_iters):.0%} of their weight"
            )
        unused = self.confidence_threshold != type(self).confidence_threshold
        if self.quantile_thresholds and unused:
            print(
                f"hint: --confidence-threshold {self.confidence_threshold:g} is not used without "
                "--no-quantile-thresholds; quantile thresholds begin at --threshold-start "
                f"{self.threshold_start:g}"
            )

    def turning(self, seed: int) -> RandomSymmetries | None:
        """Returns what flips and turns the teacher's views, or None where it sees the student's."""
        if not 0 <= self.teacher_views <= len(SYMMETRIES):
            raise ValueError(f"--teacher-views {self.teacher_views}: expected 0 to 8")
        return RandomSymmetries(seed, self.teacher_views) if self.teacher_views else None

    def distribution_alignment(
        self, data: RunData, device: torch.device
    ) -> DistributionAlignment | None:
        """Returns what shifts the votes."""
        if self.alignment == 0:
            return None
        pixels = torch.tensor(data.estimated_pixels + 1)  # of an absent class, one
        return DistributionAlignment(pixels, strength=self.alignment, device=device)

    def thresholds(self, data: RunData, steps: int, device: torch.device) -> Thresholds:
        """Returns the thresholds of a run of so many steps."""
        classes = data.classes.num_classes
        if not self.quantile_thresholds:
            return FixedThresholds([self.confidence_threshold] * classes, device)
        following: dict[str, Any] = {
            "shares": self.keep_share,
            "ramp": steps,
            "decay": self.threshold_decay,
            "start": self.threshold_start,
            "bounds": self.threshold_bounds,
            "device": device,
        }
        if self.keep_share_of == "predicted":
            return QuantileThresholds(classes, **following)
        return ExpectedThresholds(torch.tensor(data.estimated_pixels), **following)


@dataclass
class StrongOptions:
    """Strong views."""

    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strongest change of brightness, contrast, saturation, and hue (in turns); UniMatch has
    0.5 0.5 0.5 0.25."""
    grayscale: float = 0.0
    """Share of the unlabelled patches that become grey; UniMatch has 0.2."""
    blur: float = 0.0
    """Share of the unlabelled patches that are blurred; UniMatch has 0.5."""
    cutmix: float = 0.5
    """Share of the unlabelled patches that get a box of another one."""
    paste: bool = True
    """Paste half of the classes of a labelled patch into every unlabelled one, rare ones first."""

    def color_views(self) -> RandomColors | None:
        """Returns the random colours, or None where nothing changes."""
        if not any((*self.color_jitter, self.grayscale, self.blur)):
            return None
        brightness, contrast, saturation, hue = self.color_jitter
        return RandomColors(
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
            jitter_probability=RandomColors.jitter_probability if any(self.color_jitter) else 0.0,
            grayscale_probability=self.grayscale,
            blur_probability=self.blur,
        )


@dataclass
class BalanceOptions:
    """Rare classes."""

    class_weighting: Literal["clipped", "balanced"] = "clipped"
    """What --use-class-weights means: 1 / sqrt(share), at most 4, or V3's 1 / share."""
    logit_adjustment: float = 0.0
    """Adds this times the logarithm of the classes' shares to the labelled logits."""
    rare_sampling: bool = False
    """Draw half of every labelled batch by class, rare ones more often."""

    def log_prior(self, data: RunData, batch_size: int) -> Tensor | None:
        """Returns what is added to the labelled logits, by what batches show, float32 [C]."""
        if self.logit_adjustment == 0:
            return None
        rare = data.stream.rare
        seen = data.labeled_pixels.sum(axis=0) if rare is None else rare.pixels(batch_size)
        pixels = seen + 1  # of an absent class, one
        shares = torch.tensor(pixels / pixels.sum(), dtype=torch.float32)
        return self.logit_adjustment * shares.log()

    def class_weights(self, data: RunData) -> Tensor:
        """Returns the class weights of the labelled losses, float32 [C]."""
        if self.class_weighting == "balanced":
            return data.class_weights
        pixels = data.labeled_pixels.sum(axis=0)
        return torch.tensor(clipped_weights(pixels), dtype=torch.float32)
