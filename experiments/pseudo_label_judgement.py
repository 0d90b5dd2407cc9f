"""How right pseudo-labels would be: options, tables, suggested thresholds, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.options import SelfTrainingOptions
from experiments.tables import grid_table, quality_table
from ignite_salak.classes import ClassMap
from ignite_salak.metrics import PseudoLabelCounts
from ignite_salak.models.model_file import SavedModel
from ignite_salak.plots import threshold_figure

__all__ = ["PseudoLabelOptions", "judge_pseudo_labels", "precision_curves"]


@dataclass
class PseudoLabelOptions:
    """Pseudo-labels."""

    pseudo_labels: bool = False
    """Judge how right pseudo-labels would be, and suggest thresholds."""
    confidence_threshold: float | None = None
    """Threshold of all classes, instead of those that the checkpoint was trained with."""
    classwise_thresholds: tuple[str, ...] = ()
    """Thresholds that override all others, as NAME=VALUE or INDEX=VALUE."""
    wanted_precision: float = 0.9
    """Share of the kept pixels that should be right, for the suggested thresholds."""
    min_pixels: int = 1000
    """Thresholds that keep fewer pixels of a class prove nothing and are not suggested."""
    alignment: bool = True
    """Shift the votes as V4's training did when the checkpoint was saved; V3's never are."""

    def factors(self, saved: SavedModel) -> list[float] | None:
        """Returns what the votes for every class are multiplied by; None for votes as they are."""
        factors = saved.facts.get("alignment")
        if not self.alignment or factors is None:
            return None
        return [factors[name] for name in saved.classes.names]

    def thresholds(self, saved: SavedModel) -> list[float]:
        """Returns the threshold of every class."""
        if not 0.0 <= self.wanted_precision <= 1.0:
            raise ValueError(f"--wanted-precision {self.wanted_precision} is not between 0 and 1")
        if self.confidence_threshold is not None:
            options = SelfTrainingOptions(
                self.confidence_threshold, False, self.classwise_thresholds
            )
        else:
            trained = (f"{n}={v}" for n, v in saved.facts.get("thresholds", {}).items())
            options = SelfTrainingOptions(
                classwise_thresholds=(*trained, *self.classwise_thresholds)
            )
        return options.thresholds(saved.classes)


def judge_pseudo_labels(
    counts: PseudoLabelCounts,
    thresholds: Sequence[float],
    factors: Sequence[float] | None,
    options: PseudoLabelOptions,
) -> dict[str, Any]:
    """Prints what thresholds do and which would do better; returns it for metrics.json.

    Args:
        counts: of the labels and their confidence.
        thresholds: one per class.
        factors: what the votes were multiplied by, one per class, or None.
        options: what to suggest.
    """
    wanted, least = options.wanted_precision, options.min_pixels
    judged = counts.judge(thresholds)
    alignment = None if factors is None else dict(zip(counts.names, factors, strict=True))
    if alignment is not None:
        shown = ", ".join(f"{name} {factor:.2f}" for name, factor in alignment.items())
        print(f"\nVotes are multiplied as in training (--no-alignment: as they are): {shown}")
    print(
        "\nPseudo-labels at the thresholds in force (background is never kept; 'of truth': of the"
    )
    print(f"true pixels that are not background)\n\n{quality_table(judged)}")
    print("\nOne threshold for all: precision / kept share of the predicted pixels, in percent\n")
    print(grid_table(counts))
    suggested, notes = _suggest(counts, thresholds, wanted, least)
    print(f"\nLowest thresholds for a precision of {wanted:g}, from {least:,} kept pixels on\n")
    print("\n".join([quality_table(counts.judge(suggested)), *notes]))
    proposal = {counts.names[index]: suggested[index] for index in counts.foreground}
    if alignment is None:  # train_v3 does not shift votes
        flags = " ".join(f'"{name}={value:g}"' for name, value in proposal.items())
        print(f"\nFor train_v3:\n  --classwise-thresholds {flags}")
    fields = (
        *("name", "threshold", "kept", "precision", "kept_share", "recall"),
        *("share_of_kept", "share_of_truth"),
    )
    return {
        "judged": [{name: getattr(quality, name) for name in fields} for quality in judged],
        "alignment": alignment,
        "wanted_precision": wanted,
        "suggested_thresholds": proposal,
        "notes": notes,
    }


def _suggest(
    counts: PseudoLabelCounts, thresholds: Sequence[float], wanted: float, least: int
) -> tuple[list[float], list[str]]:
    """Returns one threshold per class, and what to know of those that do not reach the wanted."""
    suggested, notes = list(thresholds), []
    for index in counts.foreground:
        found = counts.threshold_for_precision(index, wanted, min_pixels=least)
        best = counts.best_threshold(index, min_pixels=least)
        name = counts.names[index]
        if found is not None:
            suggested[index] = found
        elif best is None:
            notes.append(f"{name}: fewer than {least:,} pixels are predicted; keeps its threshold")
        else:
            suggested[index] = 1.0
            precision = counts.judge_all(best)[counts.foreground.index(index)].precision
            notes.append(
                f"{name}: not reached, at best {precision:.4f} from {best:g} on; 1 keeps next to "
                "nothing"
            )
    return suggested, notes


def precision_curves(
    counts: PseudoLabelCounts,
    classes: ClassMap,
    thresholds: Sequence[float],
    options: PseudoLabelOptions,
    title: str,
) -> Figure:
    """Draws precision and kept share of every class over the threshold."""
    # The confidence of the most probable of C classes is at least 1 / C.
    steps = np.arange(counts.bins // classes.num_classes, counts.bins + 1) / counts.bins
    judged = [counts.judge_all(step)[:-1] for step in steps]
    kept = np.array([[quality.kept for quality in each] for each in judged]).T
    precision = np.array([[quality.precision for quality in each] for each in judged]).T
    return threshold_figure(
        steps,
        np.where(kept >= options.min_pixels, precision, np.nan),
        np.array([[quality.kept_share for quality in each] for each in judged]).T,
        [classes.names[index] for index in counts.foreground],
        [classes.colors[index] for index in counts.foreground],
        chosen=[thresholds[index] for index in counts.foreground],
        wanted=options.wanted_precision,
        title=title,
    )
