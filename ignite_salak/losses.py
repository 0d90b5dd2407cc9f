"""Cross-entropy, Dice and focal loss on every head, and their weighted sum by name.

Shapes: N heads, B batch, C classes, H and W of the view. Everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.ranks import sum_over_ranks

__all__ = ["CombinedLoss", "consistency_loss", "cross_entropy", "dice_loss", "focal_loss"]

_EPSILON = 1e-6
_GAMMA = 2.0


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
    gamma: float = _GAMMA,
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
    return _weighted_mean(_focal_sums(log_probabilities, target, class_weights, gamma))


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
    return _dice(_dice_sums(log_probabilities, target))


def consistency_loss(logits: Tensor, labels: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy against pseudo-labels, divided by all valid pixels, kept or not.

    So the term damps itself while few pixels are trusted (as in FixMatch, Sohn et al. 2020,
    arXiv:2001.07685, equation 4). The mean over the heads; with several ranks, all must call it.

    Args:
        logits: [N, B, C, H, W].
        labels: int64 [B, H, W], 255 where there is no pseudo-label.
        weights: of the pixels' losses, float32 [B, H, W].
        valid: pixels that could have had a pseudo-label, bool [B, H, W].

    Returns:
        float32 0-d; 0 where no pixel is valid.
    """
    kept = labels != IGNORE_INDEX
    safe = torch.where(kept, labels, 0)
    heads = [
        -functional.log_softmax(head.float(), dim=1).gather(1, safe[:, None])[:, 0]
        for head in logits
    ]
    total = (torch.stack(heads).mean(dim=0) * weights * kept).sum()
    return _weighted_mean(sum_over_ranks(torch.stack([total, valid.sum().float()])))


class CombinedLoss(nn.Module):
    """Weighted sum of cross-entropy, Dice and focal loss, the mean over the heads.

    Every head has a loss of its own: the loss of averaged heads would train one classifier.

    With ``log_prior``, all parts see logits + tau * log(prior) (logit adjustment, Menon et al.
    2021, arXiv:2007.07314): the prior need not be learnt, so the network's own logits, which are
    all that is used outside the loss, become those of equally frequent classes where tau is 1.

    Args:
        weights: weight of each of "ce", "dice" and "focal"; parts without weight are not computed.
        class_weights: float32 [C] for cross-entropy and focal loss, or None.
        log_prior: tau * log of every class's share of the labelled pixels as they are sampled,
            float32 [C], or None.

    Raises:
        ValueError: an unknown part, a negative weight, no positive weight, or an infinite prior.
    """

    class_weights: Tensor | None
    log_prior: Tensor | None

    def __init__(
        self,
        weights: Mapping[str, float],
        class_weights: Tensor | None = None,
        log_prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        unknown = set(weights) - {"ce", "dice", "focal"}
        if unknown:
            raise ValueError(f"unknown loss {sorted(unknown)}; the losses are ce, dice and focal")
        if min(weights.values()) < 0 or max(weights.values()) <= 0:
            raise ValueError(f"loss weights {dict(weights)}: none may be negative, one must be > 0")
        if log_prior is not None and not log_prior.isfinite().all():
            raise ValueError(
                f"log_prior {log_prior.tolist()} is not finite; count a class that does not occur "
                "as one pixel"
            )
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Computes the parts and their weighted sum.

        With several ranks, all of them must call it: pixels are summed over the ranks before they
        are divided, so that the loss is that of the whole batch.

        Args:
            logits: [N, B, C, H, W].
            target: class indices, int64 [B, H, W], 255 is ignored.

        Returns:
            float32 0-d tensors: the parts under their names, and "total".
        """
        heads = [self._sums(self._log_softmax(head), target) for head in logits]
        flat = sum_over_ranks(torch.cat([sums.flatten() for head in heads for sums in head]))
        sizes = [sums.numel() for head in heads for sums in head]
        values = iter(flat.split(sizes))
        losses = [[_VALUES[name](next(values)) for name in self.weights] for _ in heads]
        parts = {
            name: torch.stack(of_heads).mean()
            for name, of_heads in zip(self.weights, zip(*losses, strict=True), strict=True)
        }
        total = torch.stack([weight * parts[name] for name, weight in self.weights.items()]).sum()
        return {**parts, "total": total}

    def _log_softmax(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self.log_prior is not None:
            logits = logits + self.log_prior[:, None, None]
        return functional.log_softmax(logits, dim=1)

    def _sums(self, log_probabilities: Tensor, target: Tensor) -> list[Tensor]:
        sums = {
            "ce": lambda: _focal_sums(log_probabilities, target, self.class_weights, 0.0),
            "dice": lambda: _dice_sums(log_probabilities, target),
            "focal": lambda: _focal_sums(log_probabilities, target, self.class_weights, _GAMMA),
        }
        return [sums[name]() for name in self.weights]


def _focal_sums(
    log_probabilities: Tensor, target: Tensor, class_weights: Tensor | None, gamma: float
) -> Tensor:
    """Weighted sum of the pixels' losses, and the sum of the weights: float32 [2]."""
    labeled = target != IGNORE_INDEX
    safe_target = torch.where(labeled, target, 0)
    log_p = log_probabilities.gather(1, safe_target[:, None])[:, 0]
    weights = labeled.float() if class_weights is None else class_weights[safe_target] * labeled
    pixel_loss = -log_p if gamma == 0.0 else -log_p * (1.0 - log_p.exp()) ** gamma
    return torch.stack([(weights * pixel_loss).sum(), weights.sum()])


def _weighted_mean(sums: Tensor) -> Tensor:
    return sums[0] / sums[1].clamp_min(_EPSILON)


def _dice_sums(log_probabilities: Tensor, target: Tensor) -> Tensor:
    """Overlap, probability and pixels of every class, one after the other: float32 [3 C]."""
    classes = torch.arange(log_probabilities.shape[1], device=target.device)
    truth = target[:, None] == classes[:, None, None]
    probabilities = log_probabilities.exp() * (target != IGNORE_INDEX)[:, None]
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    pixels = truth.sum(dim=(0, 2, 3)).float()
    return torch.cat([overlap, probabilities.sum(dim=(0, 2, 3)), pixels])


def _dice(sums: Tensor) -> Tensor:
    overlap, probability, pixels = sums.view(3, -1)
    dice = 2.0 * overlap / (probability + pixels).clamp_min(_EPSILON)
    present = pixels > 0
    return ((1.0 - dice) * present).sum() / present.sum().clamp_min(1)


_VALUES = {"ce": _weighted_mean, "dice": _dice, "focal": _weighted_mean}
