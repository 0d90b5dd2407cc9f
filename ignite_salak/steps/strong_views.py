"""The strong views of a mean-teacher step: colours, CutMix, and pasted pixels of rare classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ignite_salak.augment import (
    ClassConfidence,
    RandomColors,
    draw_boxes,
    draw_classes,
    mix,
    neighbours,
)
from ignite_salak.randomness import torch_generator
from ignite_salak.ranks import rank

__all__ = ["StrongViews"]


@dataclass(frozen=True)
class StrongViews:
    """Makes strong views of unlabelled patches out of weak ones; the pixel grid stays.

    In this order: random colours; boxes of the neighbour in the batch (CutMix, Yun et al. 2019,
    arXiv:1905.04899, on images and labels as in French et al. 2020, arXiv:1906.01916); pixels of
    half of the classes of a labelled patch, never all, and their true labels (ClassMix, Olsson et
    al. 2021, arXiv:2007.07936, from labelled patches as in Hu et al. 2021, arXiv:2110.05474).

    Attributes:
        seed: seed of the run.
        colors: random colours, or None.
        box_probability: share of the patches that get a box; 0 for no CutMix.
        paste: which classes are pasted, or None for none.
    """

    seed: int
    colors: RandomColors | None = None
    box_probability: float = 0.5
    paste: ClassConfidence | None = None

    def __call__(
        self,
        iteration: int,
        unlabeled: tuple[Tensor, Tensor, Tensor],
        labeled: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Makes the views of one batch; every draw is a function of seed and iteration.

        Args:
            iteration: the current one.
            unlabeled: weak images float [B, 3, S, S], pseudo-labels int64 [B, S, S] (255 where
                there is none), and weights float32 [B, S, S] of their losses.
            labeled: weak images and true labels of as many labelled patches.

        Returns:
            Images, labels and weights as in ``unlabeled``.
        """
        images, labels, weights = unlabeled
        count, size = len(images), images.shape[-1]
        first = rank() * count
        if self.colors is not None:
            generator = torch_generator(self.seed, iteration, "colors")
            images = self.colors(images, generator, first)
        if self.box_probability > 0:
            generator = torch_generator(self.seed, iteration, "boxes")
            boxes = draw_boxes(
                count,
                size,
                generator,
                probability=self.box_probability,
                first=first,
                device=images.device,
            )
            partners = neighbours(count, images.device)
            images, labels, weights = (
                mix(boxes, own, own[partners]) for own in (images, labels, weights)
            )
        if self.paste is not None:
            source, truth = labeled
            generator = torch_generator(self.seed, iteration, "paste")
            scores = self.paste.scores()
            chosen = draw_classes(truth, scores, generator, first, with_background=False)
            if self.colors is not None:
                generator = torch_generator(self.seed, iteration, "pasted colors")
                source = self.colors(source, generator, first)
            pasted = (source, truth, torch.ones_like(weights))
            images, labels, weights = (
                mix(chosen, own, other)
                for own, other in zip((images, labels, weights), pasted, strict=True)
            )
        return images, labels, weights
