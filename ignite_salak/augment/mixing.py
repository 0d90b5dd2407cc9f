"""Patches mixed with patches: CutMix boxes, pasted classes, and which classes need pasting.

Shapes: B batch, C classes, S side of the square view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ignite_salak.augment.draws import draw_rows, to_device
from ignite_salak.classes import BACKGROUND, IGNORE_INDEX
from ignite_salak.ranks import sum_over_ranks

__all__ = ["ClassConfidence", "draw_boxes", "draw_classes", "mix", "neighbours"]


def draw_boxes(
    count: int,
    size: int,
    generator: torch.Generator,
    *,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 3.33),
    first: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws a CutMix box for each patch (French et al. 2020, arXiv:1906.01916; T1's ranges).

    Area and aspect are uniform; the aspect keeps to what fits into the view at the drawn area.
    The height is rounded to whole pixels, then the width, so that the area is off by half a column
    at most. The box lies anywhere inside the view.

    Args:
        count: patches of this rank, B.
        size: side of the views in pixels, S.
        generator: CPU generator; the draws of a patch do not depend on B.
        probability: share of the patches that get a box.
        area: bounds of the box's share of the view.
        aspect: bounds of the box's height divided by its width.
        first: position of this rank's first patch in the whole batch.
        device: where the boxes are wanted.

    Returns:
        Bool [B, S, S], true inside the box; all false where the patch is not mixed.

    Raises:
        ValueError: a range is wrong, or no box of some area and these aspects fits into the view.
    """
    _check_box(probability, area, aspect)
    mixed, share, spread, *corner = draw_rows(count, 5, generator, first).double().unbind(1)
    share = area[0] + (area[1] - area[0]) * share
    low, high = share.clamp_min(aspect[0]), (1 / share).clamp_max(aspect[1])
    height = (((low + (high - low) * spread) * share).sqrt() * size).round().clamp(1, size)
    width = (share * size**2 / height).round().clamp(1, size)
    width = torch.where(mixed < probability, width, 0)
    top, left = (u * (size - side + 1) for u, side in zip(corner, (height, width), strict=True))
    starts = torch.stack([top, left], dim=1).long()
    ends = starts + torch.stack([height, width], dim=1).long()
    corners = to_device(torch.stack([starts, ends], dim=2), device)[..., None]
    pixels = torch.arange(size, device=device)
    rows, columns = ((corners[:, :, 0] <= pixels) & (pixels < corners[:, :, 1])).unbind(1)
    return rows[:, :, None] & columns[:, None, :]


def neighbours(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Pairs the patches of this rank: 0 with 1, 2 with 3 and so on.

    Batches are in random order, so this is as good as a permutation, and no patch has to come from
    another rank. The pairs do not depend on the number of ranks where each has an even count. The
    last patch of an odd count takes the one before it, a single patch itself.

    Args:
        count: patches of this rank, B.
        device: where the indices are wanted.

    Returns:
        Index of the partner of each patch, int64 [B].
    """
    partners = torch.arange(count, device=device) ^ 1
    return torch.where(partners < count, partners, max(count - 2, 0))


def mix(mask: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Pastes pixels; called with one mask for images, labels and weights, so they move together.

    Args:
        mask: bool [B, S, S], true where ``other`` is taken.
        own: images [B, 3, S, S], or labels or weights [B, S, S].
        other: what is pasted, of the same shape and dtype.

    Returns:
        Of the same shape and dtype.

    Raises:
        ValueError: the shapes do not go together.
    """
    if own.shape != other.shape or mask.shape != own.shape[:1] + own.shape[-2:]:
        raise ValueError(
            f"mask {tuple(mask.shape)}, own {tuple(own.shape)}, other {tuple(other.shape)}: "
            "expected [B, S, S], and twice [B, 3, S, S] or [B, S, S]"
        )
    return torch.where(mask if own.ndim == 3 else mask[:, None], other, own)


def draw_classes(
    labels: Tensor,
    scores: Tensor,
    generator: torch.Generator,
    first: int = 0,
    *,
    with_background: bool = True,
) -> Tensor:
    """Draws half of the classes of every labelled patch, to be pasted into another one.

    ClassMix (Olsson et al. 2021, arXiv:2007.07936) on true labels: of the k classes present,
    k / 2, rounded down, are drawn without replacement, each next one with a probability in
    proportion to its score among those left. Rounded up, as is usual, a patch of a single class,
    of which aerial images have many, would cover the whole of another one. Those drawn are the ones
    whose exponential noise divided by the score is least (Efraimidis and Spirakis 2006), which is
    the Gumbel top-k of the scores' logarithms.

    Args:
        labels: class indices, int64 [B, S, S], 255 is never drawn.
        scores: float32 [C], not negative, such as ``ClassConfidence.scores()``.
        generator: CPU generator; the draws of a patch do not depend on B.
        first: position of this rank's first patch in the whole batch.
        with_background: whether the background can be drawn; it counts as a class anyway.

    Returns:
        Bool [B, S, S], true on the pixels of the drawn classes.
    """
    classes = len(scores)
    slots = torch.where(labels == IGNORE_INDEX, classes, labels).flatten(1)
    present = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=labels.device)
    present.scatter_(1, slots, True)
    present[:, classes] = False
    count = present.sum(dim=1, keepdim=True) // 2
    if not with_background:
        present[:, BACKGROUND] = False
    uniform = draw_rows(len(labels), classes, generator, first)
    keys = scores / to_device(-torch.log1p(-uniform), labels.device)
    keys = torch.where(present[:, :classes], keys, -1.0)
    ranks = keys.argsort(dim=1, descending=True).argsort(dim=1)
    drawn = present.clone()
    drawn[:, :classes] &= ranks < count
    return drawn.gather(1, slots).view_as(labels)


class ClassConfidence:
    """How probable the model finds the true class on labelled pixels, averaged over iterations.

    What it is unsure of is pasted more often, after adaptive CutMix (Hu et al. 2021, "AEL",
    arXiv:2110.05474). Each class has an exponential moving average of its own, which stands still
    while the class is absent and begins as a plain mean: after n updates the decay is
    min(1 - 1 / (n + 1), ``decay``), so that a short run is not ruled by a starting value.

    Args:
        num_classes: C.
        decay: decay after the ramp.
        device: where the probabilities are.

    Attributes:
        values: the averages, float32 [C], updated in place; 0 for a class never seen.
        updates: how often each class was seen, int64 [C].

    Raises:
        ValueError: ``decay`` is not in [0, 1).

    Example:
        >>> confidence = ClassConfidence(classes.num_classes)
        >>> confidence.update(vote(logits), target)
        >>> pasted = draw_classes(labels, confidence.scores(), generator)
    """

    def __init__(
        self, num_classes: int, decay: float = 0.999, device: torch.device | str = "cpu"
    ) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay {decay} of the class confidence is not in [0, 1)")
        self.decay = decay
        self.values = torch.zeros(num_classes, device=device)
        self.updates = torch.zeros(num_classes, dtype=torch.long, device=device)

    @torch.no_grad()
    def update(self, probabilities: Tensor, target: Tensor) -> None:
        """Averages in one labelled batch; where there are several ranks, all of them must call it.

        Args:
            probabilities: floating point [B, C, S, S], sum 1 over C.
            target: class indices, int64 [B, S, S], 255 is ignored.
        """
        classes = torch.arange(len(self.values), device=target.device)
        truth = target[:, None] == classes[:, None, None]
        sums = (probabilities.float() * truth).sum(dim=(0, 2, 3))
        pixels = truth.sum(dim=(0, 2, 3)).float()
        sums, pixels = sum_over_ranks(torch.stack([sums, pixels])).unbind(0)
        weight = (1 / (self.updates + 1)).clamp_min(1 - self.decay) * (pixels > 0)
        self.values.lerp_(sums / pixels.clamp_min(1), weight)
        self.updates += pixels > 0

    def scores(self) -> Tensor:
        """How much each class is wanted: exp(sqrt(1 - confidence)), float32 [C]."""
        return (1 - self.values).clamp_min(0).sqrt().exp()

    def state_dict(self) -> dict[str, Any]:
        """Returns copies of the averages and of the numbers of updates."""
        return {"values": self.values.clone(), "updates": self.updates.clone()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned, on whatever device.

        Raises:
            ValueError: it is that of another number of classes.
        """
        if state_dict["values"].shape != self.values.shape:
            raise ValueError(
                f"confidences of {len(state_dict['values'])} classes were saved, "
                f"{len(self.values)} are wanted: take the class list of the saved run"
            )
        self.values.copy_(state_dict["values"])
        self.updates.copy_(state_dict["updates"])


def _check_box(probability: float, area: tuple[float, float], aspect: tuple[float, float]) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability} of a box is not between 0 and 1")
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area {area} of a box is not 0 < low <= high <= 1")
    if not 0 < aspect[0] <= aspect[1]:
        raise ValueError(f"aspect {aspect} of a box is not 0 < low <= high")
    if area[1] > min(1 / aspect[0], aspect[1]):
        raise ValueError(
            f"a box of area {area[1]} and aspect {aspect} does not fit into the view: "
            "lower the area or bring the aspect nearer to 1"
        )
