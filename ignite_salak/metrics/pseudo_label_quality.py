"""How right pseudo-labels would be, at every threshold at once.

Shape legend: C classes, K the bins of the confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from ignite_salak.classes import BACKGROUND, IGNORE_INDEX

__all__ = ["ClassQuality", "PseudoLabelCounts", "PseudoLabelQuality"]


@dataclass(frozen=True)
class ClassQuality:
    """What one threshold does to one class, or what thresholds do to all of them together.

    Attributes:
        name: the class, or "all classes".
        threshold: confidence from which pixels are kept; NaN for all classes together.
        kept: pixels kept as this class.
        right: those of them that are this class.
        predicted: pixels of this class without a threshold; of all together, all pixels.
        truth: pixels that are this class; of all together, those that are not background.
        kept_of_all: pixels kept as any class, at the thresholds of all classes.
        truth_of_all: pixels that are not background.
    """

    name: str
    threshold: float
    kept: int
    right: int
    predicted: int
    truth: int
    kept_of_all: int
    truth_of_all: int

    @property
    def precision(self) -> float:
        """Share of the kept pixels that are right; NaN where none is kept."""
        return _share(self.right, self.kept)

    @property
    def kept_share(self) -> float:
        """Share of the predicted pixels that are kept; NaN where none is predicted."""
        return _share(self.kept, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the true pixels that are kept as what they are; NaN where there is none."""
        return _share(self.right, self.truth)

    @property
    def share_of_kept(self) -> float:
        """Share of this class among all kept pixels."""
        return _share(self.kept, self.kept_of_all)

    @property
    def share_of_truth(self) -> float:
        """Share of this class among all true pixels that are not background.

        A class whose share of the kept pixels is much larger crowds out the others.
        """
        return _share(self.truth, self.truth_of_all)


@dataclass(frozen=True)
class PseudoLabelCounts:
    """Counts from which the quality at any threshold follows; the background is never kept.

    Thresholds are rounded up to the next edge of a bin, k / K.

    Attributes:
        names: class names, the background first.
        right: right predictions per predicted class and bin of the confidence, int64 [C, K + 1];
            the last bin holds confidence 1.
        wrong: the wrong ones, int64 [C, K + 1].
        truth: pixels per true class, int64 [C].
    """

    names: tuple[str, ...]
    right: Tensor
    wrong: Tensor
    truth: Tensor

    @property
    def bins(self) -> int:
        """K."""
        return self.right.shape[1] - 1

    @property
    def foreground(self) -> list[int]:
        """Indices of the classes that can be kept."""
        return [index for index in range(len(self.names)) if index != BACKGROUND]

    def judge(self, thresholds: Sequence[float]) -> list[ClassQuality]:
        """Judges thresholds.

        Args:
            thresholds: one per class, the background's is not used.

        Returns:
            One entry for every class but the background, and one for all of them together.

        Raises:
            ValueError: not one threshold per class, or one is not in 0-1.
        """
        if len(thresholds) != len(self.names):
            raise ValueError(f"{len(thresholds)} thresholds for {len(self.names)} classes")
        right, kept = self._cumulated()
        chosen = {index: self._edge(thresholds[index]) for index in self.foreground}
        kept_of_all = sum(int(kept[index, edge]) for index, edge in chosen.items())
        right_of_all = sum(int(right[index, edge]) for index, edge in chosen.items())
        truth_of_all = int(self.truth[self.foreground].sum())
        each = [
            ClassQuality(
                name=self.names[index],
                threshold=thresholds[index],
                kept=int(kept[index, edge]),
                right=int(right[index, edge]),
                predicted=int(kept[index, 0]),
                truth=int(self.truth[index]),
                kept_of_all=kept_of_all,
                truth_of_all=truth_of_all,
            )
            for index, edge in chosen.items()
        ]
        everything = ClassQuality(
            name="all classes",
            threshold=math.nan,
            kept=kept_of_all,
            right=right_of_all,
            predicted=int(kept[:, 0].sum()),
            truth=truth_of_all,
            kept_of_all=kept_of_all,
            truth_of_all=truth_of_all,
        )
        return [*each, everything]

    def judge_all(self, threshold: float) -> list[ClassQuality]:
        """Judges one threshold for all classes; see ``judge``."""
        return self.judge([threshold] * len(self.names))

    def threshold_for_precision(
        self, index: int, wanted: float, *, min_pixels: int = 1000
    ) -> float | None:
        """Finds the lowest threshold of a class at which the kept pixels are right as wanted.

        Args:
            index: the class.
            wanted: share of the kept pixels that should be right.
            min_pixels: thresholds that keep fewer pixels prove nothing and are passed over.

        Returns:
            A bin's edge, or None where no threshold reaches the precision.
        """
        precision = self._precision(index, min_pixels)
        edges = torch.nonzero(precision >= wanted).flatten()
        return int(edges[0]) / self.bins if len(edges) else None

    def best_threshold(self, index: int, *, min_pixels: int = 1000) -> float | None:
        """Finds the lowest threshold of the highest precision of a class.

        Args:
            index: the class.
            min_pixels: see ``threshold_for_precision``.

        Returns:
            A bin's edge, or None where fewer than ``min_pixels`` pixels are predicted at all.
        """
        precision = self._precision(index, min_pixels)
        if precision.max() < 0:
            return None
        return int((precision == precision.max()).nonzero()[0]) / self.bins

    def _precision(self, index: int, min_pixels: int) -> Tensor:
        """Precision at every edge, float64 [K + 1]; -1 where too few pixels are kept."""
        right, kept = (counts[index].double() for counts in self._cumulated())
        return torch.where(kept >= max(1, min_pixels), right / kept.clamp(min=1), -1.0)

    def _cumulated(self) -> tuple[Tensor, Tensor]:
        """Right and all pixels from every edge on, int64 [C, K + 1]."""
        right = self.right.flip(1).cumsum(1).flip(1)
        return right, right + self.wrong.flip(1).cumsum(1).flip(1)

    def _edge(self, threshold: float) -> int:
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold {threshold} is not between 0 and 1")
        return math.ceil(threshold * self.bins - 1e-6)


class PseudoLabelQuality(Metric):
    """Compares would-be pseudo-labels with the truth, for all thresholds in one pass.

    It keeps two counts per predicted class and bin of the confidence, so its memory does not depend
    on the number of images, and it agrees exactly with ``pseudo_labels.select_pseudo_labels`` where
    a threshold is a bin's edge. Pixels without content or without known truth are not counted.

    ``update`` takes ``{"label", "target": integer [B, H, W], "confidence": float32 [B, H, W],
    "content": bool [B, H, W]}``, as ``engines.create_evaluator`` gives them; ``compute`` returns
    ``PseudoLabelCounts``.

    Args:
        names: class names, the background first.
        bins: K; 1000 makes every threshold of three decimals exact.
        device: where the counts are summed.

    Attributes:
        counts: wrong and right predictions, int64 [C, K + 1, 2], of this rank since the last reset.
        truth: pixels per true class, int64 [C].
        result: what ``compute`` last returned.

    Raises:
        ValueError: ``bins`` is not positive.

    Example:
        >>> quality = PseudoLabelQuality(classes.names)
        >>> create_evaluator(model, {"pseudo_labels": quality}).run(batches)
        >>> quality.result.threshold_for_precision(3, 0.9)
    """

    required_output_keys = ("label", "target", "confidence", "content")
    _state_dict_all_req_keys = ("counts", "truth")

    def __init__(
        self, names: Sequence[str], bins: int = 1000, device: torch.device | str = "cpu"
    ) -> None:
        if bins < 1:
            raise ValueError(f"{bins} bins of the confidence: expected 1 or more")
        self.names = tuple(names)
        self.bins = bins
        # Divided in float64 and rounded once, as a threshold is that becomes a float32 tensor.
        self._edges = (torch.arange(1, bins + 1).double() / bins).float().to(device)
        self.result: PseudoLabelCounts | None = None
        super().__init__(device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets all counts."""
        shape = (len(self.names), self.bins + 1, 2)
        self.counts = torch.zeros(shape, dtype=torch.long, device=self._device)
        self.truth = torch.zeros(len(self.names), dtype=torch.long, device=self._device)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Counts one batch.

        Raises:
            ValueError: the shapes differ, or a class is out of range.
        """
        label, target, confidence, content = (value.to(self._device) for value in output)
        shapes = [tuple(value.shape) for value in (label, target, confidence, content)]
        if len(set(shapes)) > 1:
            raise ValueError(f"label, target, confidence and content of shapes {shapes} differ")
        counted = content.bool() & (target != IGNORE_INDEX)
        label, target = label[counted].long(), target[counted].long()
        classes = len(self.names)
        for kind, values in (("target", target), ("label", label)):
            outside = (values < 0) | (values >= classes)
            if outside.any():
                raise ValueError(f"{kind} {int(values[outside][0])} is none of {classes} classes")
        bins = torch.bucketize(confidence[counted].float(), self._edges, right=True)
        cells = (label * (self.bins + 1) + bins) * 2 + (label == target)
        self.counts += torch.bincount(cells, minlength=self.counts.numel()).view_as(self.counts)
        self.truth += torch.bincount(target, minlength=classes)

    @sync_all_reduce("counts", "truth")
    def compute(self) -> PseudoLabelCounts:
        """Returns the counts of all batches and ranks since the last reset."""
        wrong, right = self.counts.cpu().clone().unbind(-1)
        self.result = PseudoLabelCounts(self.names, right, wrong, self.truth.cpu().clone())
        return self.result


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
