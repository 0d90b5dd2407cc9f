"""Cross-entropy, Dice and focal loss on every head, and their weighted sum by name.

Shapes: N heads, B batch, C classes, H and W of the view. Everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ignite_salak.classes import IGNORE_INDEX

__all__ = ["CombinedLoss", "cross_entropy", "dice_loss", "focal_loss"]

_EPSILON = 1e-6


def cross_entropy(
    log_probabilities: Tensor, target: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the labelled pixels, weighted by class; 0 where none is labelled.

    Args:
        log_probabilities: float32 [B, C, H, W].
        target: class indices, int64 [B, H, W], 255 is ignored.
        class_weights: float32 [C], or None for equal weights.

    Returns:
        float32 0-d.
    """
    return focal_loss(log_probabilities, target, class_weights, gamma=0.0)


def focal_loss(
    log_probabilities: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    """Mean of (1 - p)^gamma * cross-entropy over the labelled pixels, p that of the true class.

    Lin et al. 2017 (arXiv:1708.02002), equation 5, with softmax and class weights as alpha; the
    weighted sum is divided by the sum of the weights, as cross-entropy is.

    Args:
        log_probabilities: float32 [B, C, H, W].
        target: class indices, int64 [B, H, W], 255 is ignored.
        class_weights: float32 [C], or None for equal weights.
        gamma: focusing exponent; 0 is plain cross-entropy.

    Returns:
        float32 0-d.
    """
    labeled = target != IGNORE_INDEX
    safe_target = torch.where(labeled, target, 0)
    log_p = log_probabilities.gather(1, safe_target[:, None])[:, 0]
    weights = labeled.float() if class_weights is None else class_weights[safe_target] * labeled
    pixel_loss = -log_p if gamma == 0.0 else -log_p * (1.0 - log_p.exp()) ** gamma
    return (weights * pixel_loss).sum() / weights.sum().clamp_min(_EPSILON)


def dice_loss(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes that the batch's target holds.

    Milletari et al. 2016 (arXiv:1606.04797), with plain sums in the denominator, taken over the
    whole batch: an absent class adds nothing, and no class at all gives 0.

    Args:
        log_probabilities: float32 [B, C, H, W].
        target: class indices, int64 [B, H, W], 255 is ignored.

    Returns:
        float32 0-d.
    """
    classes = log_probabilities.shape[1]
    labeled = target != IGNORE_INDEX
    truth = functional.one_hot(torch.where(labeled, target, 0), classes).movedim(-1, 1)
    truth = truth * labeled[:, None]
    probabilities = log_probabilities.exp() * labeled[:, None]
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    pixels = truth.sum(dim=(0, 2, 3))
    dice = 2.0 * overlap / (probabilities.sum(dim=(0, 2, 3)) + pixels).clamp_min(_EPSILON)
    present = pixels > 0
    return ((1.0 - dice) * present).sum() / present.sum().clamp_min(1)


class CombinedLoss(nn.Module):
    """Weighted sum of cross-entropy, Dice and focal loss, the mean over the heads.

    Every head has a loss of its own: the loss of averaged heads would train one classifier.

    Args:
        weights: weight of each of "ce", "dice" and "focal"; parts without weight are not computed.
        class_weights: float32 [C] for cross-entropy and focal loss, or None.

    Raises:
        ValueError: an unknown part, a negative weight, or no positive weight.
    """

    class_weights: Tensor | None

    def __init__(self, weights: Mapping[str, float], class_weights: Tensor | None = None) -> None:
        super().__init__()
        unknown = set(weights) - {"ce", "dice", "focal"}
        if unknown:
            raise ValueError(f"unknown loss {sorted(unknown)}; the losses are ce, dice and focal")
        if min(weights.values()) < 0 or max(weights.values()) <= 0:
            raise ValueError(f"loss weights {dict(weights)}: none may be negative, one must be > 0")
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Computes the parts and their weighted sum.

        Args:
            logits: [N, B, C, H, W].
            target: class indices, int64 [B, H, W], 255 is ignored.

        Returns:
            float32 0-d tensors: the parts under their names, and "total".
        """
        heads = [self._parts(head, target) for head in logits]
        parts = {name: torch.stack([head[name] for head in heads]).mean() for name in self.weights}
        total = torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()
        return {**parts, "total": total}

    def _parts(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        log_probabilities = functional.log_softmax(logits.float(), dim=1)
        parts: dict[str, Tensor] = {}
        if "ce" in self.weights:
            parts["ce"] = cross_entropy(log_probabilities, target, self.class_weights)
        if "dice" in self.weights:
            parts["dice"] = dice_loss(log_probabilities, target)
        if "focal" in self.weights:
            parts["focal"] = focal_loss(log_probabilities, target, self.class_weights)
        return parts
