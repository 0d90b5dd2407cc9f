"""Shifts a teacher's probabilities towards the shares of the classes that labels tell.

Shapes: B batch, C classes, H and W of the view.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ignite_salak.ranks import sum_over_ranks

__all__ = ["DistributionAlignment", "align"]

_LEAST = 1e-6


def align(probabilities: Tensor, factors: Tensor) -> Tensor:
    """Multiplies the probability of every class by its factor, and normalises.

    Args:
        probabilities: float32 [B, C, H, W].
        factors: above 0, float32 [C].

    Returns:
        float32 [B, C, H, W], 1 in sum over the classes.
    """
    aligned = probabilities * factors[:, None, None]
    return aligned / aligned.sum(dim=1, keepdim=True)


class DistributionAlignment:
    """Multiplies the probability of every class by (its share of labels / its mean probability).

    A teacher that finds a class too often teaches the student to find it more often still. What is
    averaged over many unlabelled pixels is known from the labelled ones, as far as both come from
    the same kind of place: Berthelot et al. 2020, "ReMixMatch" (arXiv:1911.09785), section 3.1, per
    pixel. Where unlabelled photos show other shares, lower ``strength``.

    The mean follows the batches by an exponential average that begins as a plain mean: after n
    updates its decay is min(1 - 1 / (n + 1), ``decay``). Where there are several ranks, all must
    call together; the mean is that of all pixels.

    Args:
        shares: pixels or shares of the classes, [C]; all above 0.
        strength: exponent of the factors; 0 changes nothing.
        decay: of the exponential average.
        device: where the probabilities are.

    Attributes:
        factors: those of the last call before normalisation, float32 [C].

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> alignment = DistributionAlignment(pixels + 1)
        >>> pseudo = select_pseudo_labels(alignment(vote(logits), valid), thresholds.values, valid)
    """

    def __init__(
        self,
        shares: Tensor,
        *,
        strength: float = 1.0,
        decay: float = 0.99,
        device: torch.device | str = "cpu",
    ) -> None:
        if not (shares > 0).all():
            raise ValueError(f"shares of the classes {shares.tolist()} are not all above 0")
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"--alignment {strength} is not between 0 and 1")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay {decay} of the alignment is not in [0, 1)")
        self.strength = strength
        self.decay = decay
        self._shares = (shares.double() / shares.double().sum()).float().to(device)
        self._mean = torch.zeros_like(self._shares)
        self._updates = torch.zeros((), dtype=torch.long, device=device)
        self.factors = torch.ones_like(self._shares)

    @torch.no_grad()
    def __call__(self, probabilities: Tensor, valid: Tensor) -> Tensor:
        """Follows a batch, and returns its probabilities aligned; nothing waits for the GPU.

        Args:
            probabilities: float32 [B, C, H, W], 1 in sum over the classes.
            valid: pixels that count, bool [B, H, W].

        Returns:
            float32 [B, C, H, W], 1 in sum over the classes.
        """
        sums = (probabilities * valid[:, None]).sum(dim=(0, 2, 3))
        found = sum_over_ranks(torch.cat([sums, valid.sum()[None]]))
        weight = (1.0 / (self._updates + 1)).clamp_min(1.0 - self.decay)
        step = (found[:-1] / found[-1].clamp_min(1) - self._mean) * weight
        seen = found[-1] > 0
        self._mean += torch.where(seen, step, 0.0)
        self._updates += seen
        self.factors = torch.where(
            self._updates > 0,
            (self._shares / self._mean.clamp_min(_LEAST)) ** self.strength,
            1.0,
        )
        return align(probabilities, self.factors)

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the mean probabilities and the number of updates."""
        return OrderedDict(mean=self._mean, updates=self._updates)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned.

        Raises:
            ValueError: it is the state of another number of classes.
        """
        if state_dict["mean"].shape != self._mean.shape:
            raise ValueError(
                f"the state has {len(state_dict['mean'])} classes, not {len(self._mean)}"
            )
        self._mean.copy_(state_dict["mean"])
        self._updates.copy_(state_dict["updates"])
