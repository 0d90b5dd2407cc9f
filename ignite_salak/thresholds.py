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

__all__ = ["ExpectedThresholds", "FixedThresholds", "QuantileThresholds", "Thresholds"]

_BINS = 1_000
_LEAST = 1e-12


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
        return _share(self.shares, self.ramp, iteration)

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
        counts = sum_over_ranks(_count(probabilities, valid, len(self.values)))
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
        _check_state(state_dict, {"average", "updates"}, "average", len(self.values))
        self._average.copy_(state_dict["average"])
        self._updates.copy_(state_dict["updates"])
        self._publish()

    def _publish(self) -> None:
        self.values.copy_(self._average.clamp(*self.bounds))


class ExpectedThresholds:
    """Thresholds that keep, of every class, a share of the pixels that it should have.

    ``QuantileThresholds`` keep the same share of what is predicted as each class, so that a class
    found twice as often as it occurs has twice as many pseudo-labels as it should. Here a class
    keeps its most confident pixels up to a share of its expected number, the more strictly the more
    often it is found; one that is found less often than that keeps all of its pixels, down to the
    lower bound. So kept pixels show the classes in the shares of the labelled ones, the idea of
    DARS (He et al. 2021, arXiv:2107.11279), here without its random dropping of pixels. It assumes
    that labelled and unlabelled photos show the classes in like shares.

    The confidences of all valid pixels are counted, class by class, in a histogram that follows the
    batches by an exponential average, which begins as a plain mean: after n updates its decay is
    min(1 - 1 / (n + 1), ``decay``).

    Where there are several ranks, all must update together; the thresholds are those of all pixels.

    Args:
        expected: pixels or shares of the classes, [C]; none negative.
        shares: shares of the expected pixels that shall be kept, at iteration 0 and from iteration
            ``ramp`` on, above 0.
        ramp: iterations over which the share grows.
        decay: of the exponential average.
        start: the thresholds before the first update.
        bounds: lowest and highest threshold.
        device: where the probabilities are.

    Attributes:
        values: the thresholds, float32 [C]; always the same tensor, changed in place.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> thresholds = ExpectedThresholds(pixels, ramp=1_500)
        >>> pseudo = select_pseudo_labels(probabilities, thresholds.values, valid)
        >>> thresholds.update(probabilities, valid, iteration)
    """

    def __init__(
        self,
        expected: Tensor,
        *,
        shares: tuple[float, float] = (0.5, 0.8),
        ramp: int,
        decay: float = 0.999,
        start: float = 0.6,
        bounds: tuple[float, float] = (0.5, 0.95),
        device: torch.device | str = "cpu",
    ) -> None:
        _check(shares, ramp, decay, start, bounds)
        if not (expected >= 0).all() or not expected.sum() > 0:
            raise ValueError(
                f"expected pixels {expected.tolist()}: none may be negative, one must be above 0"
            )
        self.shares = shares
        self.ramp = ramp
        self.decay = decay
        self.bounds = bounds
        self._expected = (expected.double() / expected.double().sum()).float().to(device)
        self._histogram = torch.zeros(len(expected), _BINS, device=device)
        self._updates = torch.zeros((), dtype=torch.long, device=device)
        first = torch.full((len(expected),), start, dtype=torch.float32, device=device)
        self.values = first.clamp_(*bounds)

    def share(self, iteration: int) -> float:
        """Share of the pixels expected of a class that shall be kept at an iteration."""
        return _share(self.shares, self.ramp, iteration)

    @torch.no_grad()
    def update(
        self, probabilities: Tensor | tuple[Tensor, Tensor], valid: Tensor, iteration: int
    ) -> None:
        """Counts a batch and moves the thresholds; see ``QuantileThresholds.update``."""
        counts = sum_over_ranks(_count(probabilities, valid, len(self.values))).float()
        weight = (1.0 / (self._updates + 1)).clamp_min(1.0 - self.decay)
        seen = counts.sum() > 0
        self._histogram += torch.where(seen, (counts - self._histogram) * weight, 0.0)
        self._updates += seen
        found = self._histogram.sum(dim=1)
        wanted = self.share(iteration) * self._expected * found.sum()
        dropped = (1.0 - wanted / found.clamp_min(_LEAST)).clamp(0.0, 1.0)
        moved = _quantile(self._histogram, dropped[:, None]).clamp(*self.bounds)
        self.values.copy_(torch.where(self._updates > 0, moved, self.values))

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the histogram, the number of updates, and the thresholds."""
        return OrderedDict(histogram=self._histogram, updates=self._updates, values=self.values)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned.

        Raises:
            ValueError: it is the state of other thresholds.
        """
        _check_state(state_dict, {"histogram", "updates", "values"}, "histogram", len(self.values))
        self._histogram.copy_(state_dict["histogram"])
        self._updates.copy_(state_dict["updates"])
        self.values.copy_(state_dict["values"])


Thresholds = FixedThresholds | QuantileThresholds | ExpectedThresholds


def _share(shares: tuple[float, float], ramp: int, iteration: int) -> float:
    first, last = shares
    return last if iteration >= ramp else first + (last - first) * iteration / ramp


def _check_state(state_dict: Mapping[str, Any], names: set[str], main: str, classes: int) -> None:
    if set(state_dict) != names:
        raise ValueError(
            f"the state holds {sorted(state_dict)}, not {sorted(names)}: the thresholds of the "
            "checkpoint follow the model in another way, or not at all"
        )
    if len(state_dict[main]) != classes:
        raise ValueError(f"the state has {len(state_dict[main])} thresholds for {classes} classes")


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


def _count(probabilities: Tensor | tuple[Tensor, Tensor], valid: Tensor, classes: int) -> Tensor:
    """Valid pixels of every class by confidence, int32 [C, K]."""
    if isinstance(probabilities, Tensor):
        confidence, labels = probabilities.max(dim=1)
    else:
        confidence, labels = probabilities
    # bincount would wait for the GPU. Labels where nothing is valid may be 255.
    bins = (confidence.float() * _BINS).long().clamp_(0, _BINS - 1)
    index = torch.where(valid, labels * _BINS + bins, 0).flatten()
    counts = torch.zeros(classes * _BINS, dtype=torch.int32, device=confidence.device)
    return counts.scatter_add_(0, index, valid.flatten().int()).view(classes, _BINS)


def _quantile(counts: Tensor, share: float | Tensor) -> Tensor:
    """Confidence under which a share of each class's pixels is, linear inside a bin; float32 [C].

    Args:
        counts: pixels by confidence, int32 or float32 [C, K].
        share: of the pixels, in 0-1; of all classes, or float32 [C, 1].
    """
    below = counts.cumsum(dim=1)
    wanted = below[:, -1:] * share
    bins = (below <= wanted).sum(dim=1, keepdim=True).clamp_max(counts.shape[1] - 1)
    inside = counts.gather(1, bins)
    over = wanted - (below.gather(1, bins) - inside)
    return ((bins + over / inside.clamp_min(1)) / counts.shape[1])[:, 0]
