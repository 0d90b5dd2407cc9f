"""Scores in a narrow band along the borders between the classes, where thin things suffer first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ignite.metrics.metric import reinit__is_reduced
from torch import Tensor
from torch.nn.functional import max_pool2d

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.metrics.class_iou import ClassIoU

__all__ = ["BoundaryBandIoU", "boundary_band"]


def boundary_band(target: Tensor, width: int) -> Tensor:
    """Finds the pixels that are near a pixel of another class.

    Near is a Chebyshev distance of ``width`` or less: a straight border between two classes gets
    ``width`` pixels on either side. Ignored pixels are in no band and make no border, and neither
    does the edge of the image.

    Args:
        target: class indices, integer [B, H, W]; 255 is ignored.
        width: pixels on either side, 1 or more.

    Returns:
        Bool [B, H, W].
    """
    known = target != IGNORE_INDEX
    labels = target.float()
    lowest_and_highest = torch.stack([-labels, labels], dim=1)  # max-pooling -x finds the minimum
    lowest_and_highest.masked_fill_(~known[:, None], -torch.inf)
    nearby = max_pool2d(lowest_and_highest, 2 * width + 1, stride=1, padding=width)
    return known & ((nearby[:, 0] != -labels) | (nearby[:, 1] != labels))


class BoundaryBandIoU(ClassIoU):
    """``ClassIoU`` of nothing but the pixels of ``boundary_band``.

    This is the trimap evaluation of Kohli, Ladicky and Torr, "Robust Higher Order Potentials for
    Enforcing Label Consistency", IJCV 82, 2009, which Chen et al., "DeepLab", TPAMI
    2018 (https://arxiv.org/abs/1606.00915) give as mean IoU; their bands lie around
    void strips between the objects, ours around the borders of the truth itself. It is not the
    Boundary IoU of Cheng et al., CVPR 2021 (https://arxiv.org/abs/2103.16562), which intersects a
    band inside the true mask with a band inside the predicted one, so that false borders far from
    all true ones count too; here they count in ``ClassIoU`` alone.

    Args:
        names: class names, the background first.
        width: pixels on either side of a border.
        device: where the matrix is summed.

    Raises:
        ValueError: ``width`` is not positive.
    """

    def __init__(
        self, names: Sequence[str], width: int = 3, device: torch.device | str = "cpu"
    ) -> None:
        if width < 1:
            raise ValueError(f"--boundary-width {width} is not at least 1")
        self.width = width
        super().__init__(names, device)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Counts the band of one batch; see ``ClassIoU.compute`` for the errors."""
        pred, target = (value.to(self._device) for value in output)
        band = boundary_band(target, self.width)
        super().update((pred, target.long().masked_fill(~band, IGNORE_INDEX)))
