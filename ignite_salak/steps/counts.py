"""How many pseudo-labels a batch of all ranks has, as steps report it."""

from __future__ import annotations

import torch
from torch import Tensor

from ignite_salak.pseudo_labels import PseudoLabels
from ignite_salak.ranks import sum_over_ranks

__all__ = ["no_counts", "pseudo_label_counts"]


def pseudo_label_counts(pseudo: PseudoLabels, differing: Tensor) -> dict[str, Tensor]:
    """Counts over all ranks, which must all call it.

    Args:
        pseudo: of this rank's patches.
        differing: share of their valid pixels on which the heads differ, 0-d.

    Returns:
        "st_px" (kept pixels), "st_share" (of the valid ones), "disagreement" (share of the valid
        pixels on which the heads differ), each 0-d, and "st_px_per_class", int64 [C].
    """
    split = (differing * pseudo.valid).round().long()
    counted = torch.cat([torch.stack([pseudo.valid, split]), pseudo.per_class])
    (valid, split), per_class = sum_over_ranks(counted).split([2, len(counted) - 2])
    kept = per_class.sum().float()
    pixels = valid.clamp_min(1)
    return {
        "st_px": kept,
        "st_share": kept / pixels,
        "st_px_per_class": per_class,
        "disagreement": split / pixels,
    }


def no_counts(classes: int, device: torch.device | str) -> dict[str, Tensor]:
    """Returns the counts of a batch without self-training, which has no disagreement."""
    zero = torch.zeros((), device=device)
    per_class = torch.zeros(classes, dtype=torch.long, device=device)
    return {"st_px": zero, "st_share": zero, "st_px_per_class": per_class}
