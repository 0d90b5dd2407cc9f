"""Scores of the whole and of every source image, so that one can see which of them are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from ignite_salak.metrics.class_iou import ClassIoU, scores_from_confusion

__all__ = ["SourceIoU", "mean_iou_without"]


def mean_iou_without(confusions: Tensor, source: int, names: Sequence[str]) -> float:
    """Computes the mIoU of all source images but one, such as for a jackknife.

    Args:
        confusions: pixel counts of every source image, int64 [N, C, C], rows are the truth.
        source: the one to leave out, 0 to N - 1.
        names: class names, the background first.

    Returns:
        "mIoU" of ``scores_from_confusion``; NaN where no other source image is there.
    """
    rest = confusions.sum(dim=0) - confusions[source]
    return scores_from_confusion(rest, names)["mIoU"]


class SourceIoU(ClassIoU):
    """``ClassIoU`` that keeps a confusion matrix per source image, such as a photo, as well.

    ``update`` also takes "source", integer [B]: the source image of every patch of the batch.

    Args:
        names: class names, the background first.
        sources: how many source images there are.
        device: where the matrices are summed.

    Attributes:
        by_source: pixel counts of this rank since the last reset, int64 [N, C, C]; rows of a matrix
            are the truth.
        total_by_source: the same of all ranks, on the CPU, when ``compute`` was last called; zeros
            for a source image without a patch.

    Example:
        >>> scores = SourceIoU(classes.names, len(index.sources))
        >>> create_evaluator(model, {"scores": scores}).run(EvaluationBatches(...))
        >>> scores.total_by_source[source].diag()
    """

    required_output_keys = ("pred", "target", "source")
    _state_dict_all_req_keys = ("confusion", "by_source")

    def __init__(
        self, names: Sequence[str], sources: int, device: torch.device | str = "cpu"
    ) -> None:
        self.sources = sources
        self.total_by_source = torch.zeros(0, 0, 0, dtype=torch.long)
        super().__init__(names, device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets all counts."""
        super().reset()
        self.by_source = self.confusion.repeat(self.sources, 1, 1)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Counts one batch; see ``ClassIoU.compute`` for the errors."""
        pred, target, source = output
        counts = self._count(pred, target)
        self.confusion += counts.sum(dim=0)
        self.by_source.index_add_(0, source.to(self._device), counts)

    @sync_all_reduce("by_source")
    def compute(self) -> dict[str, float]:
        """Returns the scores of the whole; see ``ClassIoU.compute``."""
        self.total_by_source = self.by_source.cpu().clone()
        return super().compute()
