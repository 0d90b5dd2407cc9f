"""What several heads say together; nothing here waits for the GPU.

Shape legend: N heads, B batch, C classes, H and W height and width.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["disagreement", "predict_once", "vote", "weighted_vote"]


def vote(logits_NBCHW: torch.Tensor) -> torch.Tensor:
    """Averages the heads' probabilities: mean over N of softmax over C.

    Args:
        logits_NBCHW: floating point [N, B, C, H, W].

    Returns:
        float32 [B, C, H, W] that sums to one over C, whatever the dtype of the logits and
        whether or not autocast is on.

    Raises:
        ValueError: not five dimensions.
    """
    _check_logits(logits_NBCHW)
    return logits_NBCHW.float().softmax(dim=2).mean(dim=0)


def weighted_vote(logits_NBCHW: torch.Tensor, weight: float = 5.0) -> torch.Tensor:
    """Counts a vote of every head for its class, and ``weight`` votes for that of their sum.

    DiverseHead's vote: Ma et al. 2023 (arXiv:2311.13716).

    Args:
        logits_NBCHW: floating point [N, B, C, H, W].
        weight: votes of the class with the largest sum of logits.

    Returns:
        Share of every class in the weight + N votes, float32 [B, C, H, W]. Where two classes have
        the same share, ``argmax`` takes the one of lower index.

    Raises:
        ValueError: not five dimensions.
    """
    _check_logits(logits_NBCHW)
    classes_C11 = torch.arange(logits_NBCHW.shape[2], device=logits_NBCHW.device)[:, None, None]
    votes_BCHW = (logits_NBCHW.argmax(dim=2)[:, :, None] == classes_C11).sum(dim=0)
    together_BHW = logits_NBCHW.float().sum(dim=0).argmax(dim=1)
    weighted_BCHW = weight * (together_BHW[:, None] == classes_C11) + votes_BCHW
    return weighted_BCHW / (weight + len(logits_NBCHW))


def predict_once(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Runs the model once and lets its heads vote.

    Args:
        model: returns logits [N, B, C, H, W].
        images: floating point [B, 3, H, W] in 0-1.

    Returns:
        Probabilities, float32 [B, C, H, W].
    """
    return vote(model(images))


def disagreement(logits_NBCHW: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Computes the share of pixels on which not all heads prefer the same class.

    Below 0.005 the heads have collapsed into one.

    Args:
        logits_NBCHW: floating point [N, B, C, H, W].
        valid: bool [B, H, W], the pixels to count; all by default.

    Returns:
        float32 0-d tensor in [0, 1]; 0 for one head, and where no pixel is valid.

    Raises:
        ValueError: a shape or the mask's dtype is wrong.
    """
    _check_logits(logits_NBCHW)
    votes_NBHW = logits_NBCHW.argmax(dim=2)
    if valid is None:
        valid = torch.ones_like(votes_NBHW[0], dtype=torch.bool)
    elif valid.dtype != torch.bool or valid.shape != votes_NBHW.shape[1:]:
        raise ValueError(
            f"valid mask of {valid.dtype} {tuple(valid.shape)}, "
            f"expected torch.bool {tuple(votes_NBHW.shape[1:])}"
        )
    split_BHW = (votes_NBHW != votes_NBHW[:1]).any(dim=0)
    return (split_BHW & valid).sum() / valid.sum().clamp(min=1)


def _check_logits(logits_NBCHW: torch.Tensor) -> None:
    if logits_NBCHW.ndim != 5:
        raise ValueError(f"logits of shape {tuple(logits_NBCHW.shape)}, expected [N, B, C, H, W]")
