"""Per-class IoU and everything else that follows from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor

from ignite_salak.classes import BACKGROUND, IGNORE_INDEX

__all__ = ["ClassIoU", "scores_from_confusion"]


def scores_from_confusion(confusion: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Computes the scores of a segmentation.

    Args:
        confusion: pixel counts, int64 [C, C], rows are the truth and columns the prediction.
        names: class names, the background first.

    Returns:
        "mIoU" (mean over the classes without the background), "mIoU_with_background", "accuracy"
        (of all pixels), and "IoU/<name>", "precision/<name>", "recall/<name>", "F1/<name>".
        Values without a pixel to count are NaN and leave the means: the IoU of a class that occurs
        neither in truth nor in prediction, the precision of one never predicted, the recall of
        one that is not there.
    """
    matrix = confusion.double().cpu()
    hits, truth, predicted = matrix.diag(), matrix.sum(1), matrix.sum(0)
    iou = hits / (truth + predicted - hits)
    per_class = {
        "IoU": iou,
        "precision": hits / predicted,
        "recall": hits / truth,
        "F1": 2 * hits / (truth + predicted),
    }
    foreground = torch.arange(len(names)) != BACKGROUND
    scores = {
        "mIoU": iou[foreground].nanmean().item(),
        "mIoU_with_background": iou.nanmean().item(),
        "accuracy": (hits.sum() / matrix.sum()).item(),
    }
    for score, values in per_class.items():
        scores |= {f"{score}/{name}": v for name, v in zip(names, values.tolist(), strict=True)}
    return scores


class ClassIoU(Metric):
    """Sums one confusion matrix over batches and ranks; no prediction is kept.

    ``update`` takes ``{"pred": integer [B, H, W], "target": integer [B, H, W]}``; target 255 is
    ignored. ``compute`` returns ``scores_from_confusion``; it is the only one that waits for a GPU.

    Args:
        names: class names, the background first.
        device: where the matrix is summed.

    Attributes:
        confusion: int64 [C, C], rows are the truth, of this rank since the last reset.
        total: the same of all ranks, on the CPU, when ``compute`` was last called.
        result: what ``compute`` last returned.

    Example:
        >>> evaluator = create_evaluator(model, {"scores": ClassIoU(classes.names)})
        >>> evaluator.run(batches).metrics["scores"]["mIoU"]
    """

    required_output_keys: tuple[str, ...] = ("pred", "target")
    _state_dict_all_req_keys: tuple[str, ...] = ("confusion",)

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.total = torch.zeros(0, 0, dtype=torch.long)
        self.result: dict[str, float] = {}
        super().__init__(device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forgets all counts."""
        classes = len(self.names)
        self.confusion = torch.zeros(classes, classes, dtype=torch.long, device=self._device)
        none = torch.zeros(2, dtype=torch.long, device=self._device)
        self._bounds = (none, none)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Counts one batch, without waiting for the GPU.

        Raises:
            ValueError: the shapes differ.
        """
        self.confusion += self._count(*output).sum(dim=0)

    def _count(self, pred: Tensor, target: Tensor) -> Tensor:
        """Notes the bounds of a batch and returns its pixel counts, int64 [B, C, C]."""
        pred, target = (value.to(self._device).long() for value in (pred, target))
        if pred.shape != target.shape:
            raise ValueError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} differ")
        classes = len(self.names)
        counted = target != IGNORE_INDEX
        low, high = torch.where(counted, torch.stack([pred, target]), 0).flatten(1).aminmax(dim=1)
        self._bounds = (self._bounds[0].minimum(low), self._bounds[1].maximum(high))
        # bincount and masks would wait; additions row by row do not queue up at one cell.
        cells = torch.where(counted, target * classes + pred, classes**2)
        rows = cells.clamp(0, classes**2)
        counts = rows.new_zeros(*rows.shape[:-1], classes**2 + 1)
        counts.scatter_add_(-1, rows, rows.new_ones(()).expand_as(rows))
        return counts.flatten(1, -2).sum(dim=1)[:, :-1].unflatten(1, (classes, classes))

    @sync_all_reduce("confusion")
    def compute(self) -> dict[str, float]:
        """Returns the scores of all batches since the last reset.

        Raises:
            ValueError: a target was neither a class nor 255, or a prediction was no class.
        """
        low, high = (bound.tolist() for bound in self._bounds)
        for name, *bounds in zip(("prediction", "target"), low, high, strict=True):
            for value in bounds:
                if not 0 <= value < len(self.names):
                    raise ValueError(
                        f"{name} {value}: not among {len(self.names)} classes; "
                        f"only target {IGNORE_INDEX} is ignored"
                    )
        self.total = self.confusion.cpu().clone()
        self.result = scores_from_confusion(self.total, self.names)
        return self.result
