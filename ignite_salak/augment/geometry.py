"""Weak and multi-scale views of GPU batches, warped by kornia.

Shapes: B batch, C channels, H and W of the patch, S of the view.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from kornia.geometry.transform import remap
from torch import Tensor

from ignite_salak.classes import IGNORE_INDEX

__all__ = ["Geometry", "RandomGeometry", "draw_size"]

_SIZE_STEP = 16


def draw_size(smallest: int, largest: int, generator: torch.Generator) -> int:
    """Draws the side of this iteration's square views: a multiple of 16 between two sizes.

    Args:
        smallest: smallest side in pixels, inclusive.
        largest: largest side in pixels, inclusive.
        generator: CPU generator.

    Raises:
        ValueError: no multiple of 16 lies between the two.
    """
    low, high = -(-smallest // _SIZE_STEP), largest // _SIZE_STEP
    if low > high or low < 1:
        raise ValueError(
            f"no multiple of {_SIZE_STEP} between --scale-min {smallest} and --scale-max {largest}"
        )
    return _SIZE_STEP * int(torch.randint(low, high + 1, (), generator=generator))


@dataclass(frozen=True)
class Geometry:
    """One affine warp for every patch of a batch: image, mask and pseudo-labels move together.

    Attributes:
        matrices: maps patch pixels to view pixels, float32 [B, 2, 3], on the CPU.
        size: side of the square views in pixels.
    """

    matrices: Tensor
    size: int
    _maps: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def warp_image(self, images: Tensor) -> Tensor:
        """Warps images bilinearly; what lies outside the patch becomes black.

        Args:
            images: float [B, C, H, W].

        Returns:
            float [B, C, S, S].
        """
        return self._warp(images, "bilinear")

    def warp_labels(self, labels: Tensor) -> Tensor:
        """Warps class indices to the nearest pixel; what lies outside the patch becomes 255.

        Args:
            labels: int64 [B, H, W].

        Returns:
            int64 [B, S, S].
        """
        # kornia fills with 0, so 0 has to mean "ignore" while it warps.
        shifted = torch.where(labels == IGNORE_INDEX, 0, labels + 1)
        warped = self._warp(shifted[:, None].float(), "nearest")[:, 0].round().long()
        return torch.where(warped == 0, IGNORE_INDEX, warped - 1)

    def _warp(self, values: Tensor, mode: str) -> Tensor:
        height, width = values.shape[-2:]
        key = (height, width, values.device)
        if key not in self._maps:  # of the image, which the labels then share
            self._maps[key] = self._positions(height, width, values.device)
        return remap(
            values,
            *self._maps[key],
            mode=mode,
            padding_mode="zeros",
            align_corners=False,
            normalized_coordinates=True,
        )

    def _positions(self, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Where every view pixel lies in its patch, x and y, from edge to edge -1 to 1, [B, S, S].

        kornia's own way from matrices to positions makes small tensors on the GPU from Python
        numbers and, before 0.9, solves linear systems there; both let the host wait.
        """
        inverse = _view_to_patch(self.matrices, self.size, height, width)
        if device.type == "cuda":
            inverse = inverse.pin_memory()  # the copy of pageable memory waits
        rows = inverse.to(device, non_blocking=True)[..., None, None].unbind(1)
        x = (2 * torch.arange(self.size, device=device) + 1) / self.size - 1
        map_x, map_y = (row[:, 0] * x + (row[:, 1] * x[:, None] + row[:, 2]) for row in rows)
        return map_x, map_y


def _view_to_patch(matrices: Tensor, size: int, height: int, width: int) -> Tensor:
    """Inverts maps from patch to view pixels, and scales both so that edges lie at -1 and 1.

    Args:
        matrices: [B, 2, 3].
        size: side of the view in pixels.
        height: patch height in pixels.
        width: patch width in pixels.

    Returns:
        float32 [B, 2, 3], computed in float64.
    """
    a, b, x, c, d, y = matrices.double().flatten(1).unbind(1)
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]
    centre = (size - 1) / 2 - torch.stack([x, y], dim=1)[..., None]
    sides = torch.tensor([[width], [height]])
    offset = (2 * (linear @ centre) + 1) / sides - 1
    return torch.cat([linear * size / sides, offset], dim=2).float()


@dataclass(frozen=True)
class RandomGeometry:
    """Draws horizontal flips, quarter turns, random scales and random crops to a square view.

    A patch is first fitted to the view, then enlarged or shrunk by a random factor; of an enlarged
    patch a random window is seen, a shrunk one lies at a random place on an ignored border.

    Attributes:
        mirror: flip half of the patches left to right.
        scale_range: bounds of the random factor; (1, 1) switches it off.
        turns: turn every patch by 0, 90, 180 or 270 degrees: a photo from straight above has no up.
    """

    mirror: bool = True
    scale_range: tuple[float, float] = (0.75, 1.5)
    turns: bool = False

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if not 0 < low <= high:
            raise ValueError(f"scale range {self.scale_range} is not 0 < low <= high")

    def draw(
        self, count: int, height: int, width: int, size: int, generator: torch.Generator
    ) -> Geometry:
        """Draws the warps of one batch.

        Args:
            count: patches in the batch, B.
            height: patch height in pixels.
            width: patch width in pixels.
            size: side of the view in pixels, S.
            generator: CPU generator; the draws of patch b do not depend on B.
        """
        low, high = self.scale_range
        flip, spread, x, y, *turn = torch.rand(
            count, 5 if self.turns else 4, generator=generator
        ).unbind(1)
        factor = (low + (high - low) * spread) * size / max(height, width)
        shift_x = x * (size - factor * width)
        shift_y = y * (size - factor * height)
        mirrored = (flip < 0.5) & self.mirror
        # Pixel centres lie at integers, so a patch spans from -0.5 to side - 0.5.
        sign = torch.where(mirrored, -1.0, 1.0)
        scale_x = sign * factor
        left = torch.where(mirrored, shift_x + factor * width, shift_x)
        zero = torch.zeros(count)
        matrices = torch.stack(
            [
                torch.stack([scale_x, zero, left + 0.5 * scale_x - 0.5], dim=1),
                torch.stack([zero, factor, shift_y + 0.5 * factor - 0.5], dim=1),
            ],
            dim=1,
        )
        if self.turns:
            matrices = _turn((4 * turn[0]).long(), size) @ _square(matrices)
        return Geometry(matrices, size)


def _turn(quarters: Tensor, size: int) -> Tensor:
    """Turns of a view of this size about its centre, float32 [B, 2, 3], from int64 [B]."""
    cosine, sine = (torch.tensor([v, w, -v, -w])[quarters] for v, w in ((1.0, 0.0), (0.0, 1.0)))
    linear = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2)
    centre = torch.full((len(quarters), 2, 1), (size - 1) / 2)
    return torch.cat([linear, centre - linear @ centre], dim=2)


def _square(matrices: Tensor) -> Tensor:
    """Appends the row 0 0 1 to matrices [B, 2, 3]."""
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(matrices), 1, 3)
    return torch.cat([matrices, last], dim=1)
