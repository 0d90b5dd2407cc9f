"""Confidence from which a pixel becomes a pseudo-label, per class: fixed, or following the model.

Shapes: B batch, C classes, K histogram bins, H and W of the view.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ignite_salak.ranks import sum_over_ranks

__all__ = ["FixedThresholds", "QuantileThresholds"]

_BINS = 1_000


class FixedThresholds:
    """Thresholds that stay as they are.

    Args:
        values: one per class, 0-1.
        device: where they are compared.

    Attributes:
        values: float32 [C].

    Raises:
        ValueError: a threshold is not in 0-1.
    """

    def __init__(self, values: Sequence[float], device: torch.device | str = "cpu") -> None:
        for value in values:
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"confidence threshold {value} is not between 0 and 1")
        self.values = torch.tensor(values, dtype=torch.float32, device=device)

    def update(
        self, probabilities: Tensor | tuple[Tensor, Tensor], valid: Tensor, iteration: int
    ) -> None:
        """Does nothing; see ``QuantileThresholds.update``."""

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns nothing: a run that goes on takes the thresholds of its options."""
        return OrderedDict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores nothing."""


class QuantileThresholds:
    """Thresholds that keep about the same share of the pixels predicted as each class.

    For every class that a batch is predicted to have, the confidence which a given share of those
    pixels reaches (a quantile) moves an exponential average; clipped, that is the threshold. One
    threshold for all would let the classes that are easy crowd out the others. The share grows
    linearly with the iteration. To keep a growing share of every class is the idea of CBST (Zou et
    al. 2018, arXiv:1810.07911), which ranks the pixels of a whole data set; to average over batches
    is that of FreeMatch (Wang et al. 2023, arXiv:2205.07246), which averages means.

    An average with decay d lags 1 / (1 - d) updates behind what it follows, and the start still
    weighs d^n after n updates: with 0.999 that is 0.61 after 500 and 0.22 after 1,500, so a short
    run stays near its start and keeps another share than the one asked for; 0.99 has let go of it
    (0.007) after 500. Without a start the average is a plain mean at first, until it has seen
    1 / (1 - d) batches with the class: it is where the first, unsure batches were, and clipping at
    the lower bound is all that guards them.

    Where there are several ranks, all must update together; the thresholds are those of all pixels.

    Args:
        num_classes: C, the background included, whose threshold no one needs.
        shares: shares of the pixels predicted as a class that shall be kept, at iteration 0 and
            from iteration ``ramp`` on, above 0.
        ramp: iterations over which the share grows.
        decay: of the exponential average.
        start: the average before the first update; None makes the first quantile of a class its
            start. Then classes not yet seen have the upper bound.
        bounds: lowest and highest threshold.
        device: where the probabilities are.

    Attributes:
        values: the thresholds, float32 [C]; always the same tensor, changed in place.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> thresholds = QuantileThresholds(classes.num_classes, ramp=1_500)
        >>> pseudo = select_pseudo_labels(probabilities, thresholds.values, valid)
        >>> thresholds.update(probabilities, valid, iteration)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        shares: tuple[float, float] = (0.5, 0.8),
        ramp: int,
        decay: float = 0.999,
        start: float | None = 0.85,
        bounds: tuple[float, float] = (0.5, 0.95),
        device: torch.device | str = "cpu",
    ) -> None:
        _check(shares, ramp, decay, start, bounds)
        self.shares = shares
        self.ramp = ramp
        self.decay = decay
        self.bounds = bounds
        self._from_start = start is not None
        first = bounds[1] if start is None else start
        self._average = torch.full((num_classes,), first, dtype=torch.float32, device=device)
        self._updates = torch.zeros(num_classes, dtype=torch.long, device=device)
        self.values = self._average.clamp(*bounds)

    def share(self, iteration: int) -> float:
        """Share of the pixels predicted as a class that shall be kept at an iteration."""
        first, last = self.shares
        return last if iteration >= self.ramp else first + (last - first) * iteration / self.ramp

    @torch.no_grad()
    def update(
        self, probabilities: Tensor | tuple[Tensor, Tensor], valid: Tensor, iteration: int
    ) -> None:
        """Moves the thresholds of the classes that are predicted; nothing waits for the GPU.

        Args:
            probabilities: float [B, C, H, W], or their maximum and its class, float and int64
                [B, H, W] each.
            valid: pixels that count, bool [B, H, W].
            iteration: of the run, from 0.
        """
        if isinstance(probabilities, Tensor):
            confidence, labels = probabilities.max(dim=1)
        else:
            confidence, labels = probabilities
        counts = sum_over_ranks(_histogram(confidence, labels, valid, len(self.values)))
        present = counts.sum(dim=1) > 0
        self._updates += present
        weight: Tensor | float = 1.0 - self.decay
        if not self._from_start:
            weight = (1.0 / self._updates.clamp_min(1)).clamp_min(weight)
        step = (_quantile(counts, 1.0 - self.share(iteration)) - self._average) * weight
        self._average += torch.where(present, step, 0.0)
        self._publish()

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the averages before clipping and the number of updates of every class."""
        return OrderedDict(average=self._average, updates=self._updates)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned.

        Raises:
            ValueError: it is the state of other thresholds.
        """
        if set(state_dict) != {"average", "updates"}:
            raise ValueError(
                f"the state holds {sorted(state_dict)}, not average and updates: these thresholds "
                "follow the model, those of the checkpoint did not"
            )
        if state_dict["average"].shape != self._average.shape:
            raise ValueError(
                f"the state has {len(state_dict['average'])} thresholds for "
                f"{len(self._average)} classes"
            )
        self._average.copy_(state_dict["average"])
        self._updates.copy_(state_dict["updates"])
        self._publish()

    def _publish(self) -> None:
        self.values.copy_(self._average.clamp(*self.bounds))


def _check(
    shares: tuple[float, float],
    ramp: int,
    decay: float,
    start: float | None,
    bounds: tuple[float, float],
) -> None:
    if not all(0.0 < share <= 1.0 for share in shares):
        raise ValueError(f"shares {shares} of the pixels to be kept are not all in (0, 1]")
    if ramp < 0:
        raise ValueError(f"a ramp of {ramp} iterations is negative")
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"decay {decay} of the thresholds is not in [0, 1)")
    if start is not None and not 0.0 <= start <= 1.0:
        raise ValueError(f"start {start} of the thresholds is not between 0 and 1")
    if not 0.0 <= bounds[0] <= bounds[1] <= 1.0:
        raise ValueError(f"bounds {bounds} of the thresholds are not ascending between 0 and 1")


def _histogram(confidence: Tensor, labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Valid pixels of every class by confidence, int32 [C, K]."""
    # bincount would wait for the GPU. Labels where nothing is valid may be 255.
    bins = (confidence.float() * _BINS).long().clamp_(0, _BINS - 1)
    index = torch.where(valid, labels * _BINS + bins, 0).flatten()
    counts = torch.zeros(classes * _BINS, dtype=torch.int32, device=confidence.device)
    return counts.scatter_add_(0, index, valid.flatten().int()).view(classes, _BINS)


def _quantile(counts: Tensor, share: float) -> Tensor:
    """Confidence under which a share of each class's pixels is, linear inside a bin; float32 [C].

    Args:
        counts: pixels by confidence, int32 [C, K].
        share: of the pixels, in [0, 1).
    """
    below = counts.cumsum(dim=1)
    wanted = below[:, -1:] * share
    bins = (below <= wanted).sum(dim=1, keepdim=True).clamp_max(counts.shape[1] - 1)
    inside = counts.gather(1, bins)
    over = wanted - (below.gather(1, bins) - inside)
    return ((bins + over / inside.clamp_min(1)) / counts.shape[1])[:, 0]
