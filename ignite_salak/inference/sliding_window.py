"""Overlapping windows over an image of any size, blended without seams, as a stream of rows.

Shapes: B windows of one batch, C classes, H and W of the image, h and w of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Band", "ReadRows", "SlidingWindow", "blending_weights", "window_starts"]

_SMALLEST = 16
_MOST_OVERLAP = 0.9  # 100 predictions of every pixel

ReadRows = Callable[[int, int], tuple[np.ndarray, np.ndarray]]
"""(top, rows) -> image uint8 [3, rows, W] and valid bool [rows, W]."""


@dataclass(frozen=True)
class Band:
    """Finished rows of an image.

    Attributes:
        top: number of the first row.
        probabilities: float32 [C, rows, W]; they sum to one over C where ``valid`` is true. They
            are good until the next band is asked for, which reuses their memory.
        valid: pixels with image content, bool [rows, W].
        image: what was predicted, uint8 [3, rows, W].
    """

    top: int
    probabilities: Tensor
    valid: np.ndarray
    image: np.ndarray


def window_starts(length: int, size: int, stride: int, offset: int = 0) -> list[int]:
    """Places windows along one axis so that they cover it and none leaves it.

    Args:
        length: pixels of the axis.
        size: pixels of a window; one that is longer than the axis is as long as the axis.
        stride: pixels from one window to the next, at most ``size``.
        offset: pixels by which the inner windows are shifted back, in 0 to ``stride`` - 1.

    Returns:
        First pixels, rising; the first is 0 and the last ends at ``length``.
    """
    last = max(0, length - size)
    inner = range(stride - offset, last, stride)
    return sorted({0, *inner, last})


def blending_weights(length: int, size: int, starts: list[int]) -> Tensor:
    """Computes the weights of the windows along one axis.

    Each is a Hann window sampled at pixel centres, sin^2(pi (k + 1/2) / size), divided by the sum
    over all windows at the pixel. So the weights of a pixel sum to one, and, as the weight in two
    dimensions is the product of those of the axes, they do so in two.

    Args:
        length: pixels of the axis.
        size: pixels of a window, at most ``length``.
        starts: see ``window_starts``.

    Returns:
        float32 [windows, size].
    """
    hann = torch.sin(math.pi * (torch.arange(size, dtype=torch.float64) + 0.5) / size) ** 2
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += hann
    return torch.stack([(hann / total[start : start + size]).float() for start in starts])


class SlidingWindow:
    """Predicts an image window by window and hands out finished rows from top to bottom.

    Memory is that of one row of windows, C + 1 times its pixels as float32, whatever the height of
    the image. Every row of the image is read once, ahead of the network by one row of windows.

    Args:
        predict: called with uint8 [B, 3, h, w] on the CPU; returns probabilities [B, C, h, w].
        num_classes: C.
        size: side of the windows in pixels; an image that is smaller is one window.
        overlap: share of a window that the next one covers too, in [0, 1).
        batch_size: windows predicted at once.
        offset: pixels by which the grid is shifted, to see what depends on it.
        device: where the windows are blended.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Tensor],
        num_classes: int,
        *,
        size: int = 512,
        overlap: float = 0.5,
        batch_size: int = 4,
        offset: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if size < _SMALLEST:
            raise ValueError(f"--window {size} is not at least {_SMALLEST}")
        if not 0.0 <= overlap <= _MOST_OVERLAP:
            raise ValueError(f"--overlap {overlap} is not in 0 to {_MOST_OVERLAP}")
        if batch_size < 1:
            raise ValueError(f"--batch-size {batch_size} is not at least 1")
        self.predict = predict
        self.num_classes = num_classes
        self.size = size
        self.stride = max(1, round(size * (1.0 - overlap)))
        self.batch_size = batch_size
        self.offset = offset % self.stride
        self.device = torch.device(device)

    def rows(self, height: int) -> int:
        """Returns the number of bands of an image."""
        return len(self._starts(height))

    def __call__(self, read: ReadRows, height: int, width: int) -> Iterator[Band]:
        """Predicts an image.

        Args:
            read: reads rows; called for all of them once, in order, from one other thread.
            height: H.
            width: W.

        Yields:
            Bands that follow each other and cover the image.
        """
        tops, lefts = self._starts(height), self._starts(width)
        rows, columns = min(self.size, height), min(self.size, width)
        down = blending_weights(height, rows, tops).to(self.device)
        across = blending_weights(width, columns, lefts).to(self.device)
        sums = torch.zeros(self.num_classes, rows, width, device=self.device)
        with ThreadPoolExecutor(1) as reader:
            pending = reader.submit(read, 0, rows)
            image, valid = np.empty((3, 0, width), np.uint8), np.empty((0, width), bool)
            for top, following, weights in zip(tops, [*tops[1:], height], down, strict=True):
                pixels, content = pending.result()
                image = np.concatenate([image, pixels], axis=1)
                valid = np.concatenate([valid, content])
                done = following - top
                if following < height:
                    pending = reader.submit(read, top + rows, done)
                for left, weight, values in self._predict_row(image, valid, lefts, across):
                    sums[:, :, left : left + columns] += values * (weights[:, None] * weight)
                yield Band(top, sums[:, :done], valid[:done], image[:, :done])
                image, valid = image[:, done:], valid[done:]
                for plane in sums:
                    plane[: rows - done] = plane[done:].clone()
                sums[:, rows - done :] = 0

    def _starts(self, length: int) -> list[int]:
        return window_starts(length, self.size, self.stride, self.offset)

    def _predict_row(
        self, image: np.ndarray, valid: np.ndarray, lefts: list[int], across: Tensor
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields first column, weights [w] and probabilities [C, h, w] of a row of windows."""
        pixels, columns = torch.from_numpy(image), across.shape[1]
        # Every window of a valid pixel is kept, so that its weights still sum to one.
        kept = [i for i, left in enumerate(lefts) if valid[:, left : left + columns].any()]
        for first in range(0, len(kept), self.batch_size):
            chosen = kept[first : first + self.batch_size]
            windows = [pixels[:, :, lefts[i] : lefts[i] + columns] for i in chosen]
            probabilities = self.predict(torch.stack(windows)).to(self.device)
            for i, values in zip(chosen, probabilities, strict=True):
                yield lefts[i], across[i], values
