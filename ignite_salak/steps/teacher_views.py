"""The random views of a patch that V4's teacher votes on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ignite_salak.randomness import torch_generator
from ignite_salak.resizing import resize
from ignite_salak.symmetry import SYMMETRIES, Symmetry

__all__ = ["TeacherView", "TeacherViews"]

_SIZE_STEP = 16


@dataclass(frozen=True)
class TeacherView:
    """One way to look at a batch of patches.

    Attributes:
        symmetry: its flip and turn.
        scale: its side divided by that of the patches.
    """

    symmetry: Symmetry
    scale: float = 1.0

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Returns what a model says of the view, on the pixels of the patches, [N, B, C, H, W].

        Args:
            model: returns logits [N, B, C, h, w] for images [B, 3, h, w].
            images: floating point [B, 3, H, W]; square where the symmetry turns them by 90
                degrees. The view's sides are multiples of 16 pixels where it is of another scale.
        """
        height, width = images.shape[-2:]
        if self.scale == 1.0:
            return self.symmetry.undo(model(self.symmetry.apply(images)))
        view = resize(images, (_side(height * self.scale), _side(width * self.scale)))
        logits = self.symmetry.undo(model(self.symmetry.apply(view)))
        return resize(logits.flatten(0, 1).float(), (height, width)).unflatten(0, logits.shape[:2])


class TeacherViews:
    """Draws the views on which the teacher votes in an iteration; the mean of its votes counts.

    A photo from straight above has no up, so a patch that is flipped, turned or enlarged a little
    shows the same classes. Mistakes do depend on the view: a teacher and a student that always see
    the same one confirm each other's (the turned teacher of TCSM, Li et al. 2019,
    arXiv:1903.00348), and the mean over views is right more often, which is what test-time
    augmentation lives on. The first view has the scale of the patches, the further ones scales of
    their own, and no two of one iteration are flipped and turned alike. All processes of a run draw
    the same views.

    Args:
        seed: of the run.
        count: views in every iteration, 1 to 8; each costs a forward pass without gradient.
        scales: smallest and largest scale of the views after the first.

    Raises:
        ValueError: another count, or scales that are not in order or not positive.
    """

    def __init__(self, seed: int, count: int = 1, scales: tuple[float, float] = (1.0, 1.0)) -> None:
        if not 1 <= count <= len(SYMMETRIES):
            raise ValueError(
                f"--teacher-views {count}: expected 1 to {len(SYMMETRIES)}, "
                "or 0 for the student's own"
            )
        low, high = scales
        if not 0 < low <= high < float("inf"):
            raise ValueError(f"--teacher-scales {low:g} {high:g}: expected 0 < smallest <= largest")
        self.seed = seed
        self.count = count
        self.scales = scales

    def draw(self, iteration: int) -> tuple[TeacherView, ...]:
        """Returns the views of an iteration."""
        generator = torch_generator(self.seed, iteration, "symmetry")
        first = int(torch.randint(len(SYMMETRIES), (), generator=generator))
        views = [TeacherView(SYMMETRIES[first])]
        steps = 1 + torch.randperm(len(SYMMETRIES) - 1, generator=generator)
        for step in steps[: self.count - 1].tolist():
            scale = float(torch.empty(()).uniform_(*self.scales, generator=generator))
            views.append(TeacherView(SYMMETRIES[(first + step) % len(SYMMETRIES)], scale))
        return tuple(views)


def _side(pixels: float) -> int:
    return max(1, round(pixels / _SIZE_STEP)) * _SIZE_STEP
