"""Counts of pseudo-labels, of one process (tests/test_ranks.py has two)."""

import pytest
import torch

from ignite_salak.pseudo_labels import PseudoLabels
from ignite_salak.steps.counts import no_counts, pseudo_label_counts


def test_counts_by_hand():
    labels = torch.full((1, 4, 5), 255)
    labels[0, 0] = torch.tensor([1, 1, 2, 255, 255])
    pseudo = PseudoLabels(labels, torch.tensor([0, 2, 1]), torch.tensor(12))
    counts = pseudo_label_counts(pseudo, torch.tensor(0.25))
    assert counts["st_px"] == 3
    assert counts["st_share"].item() == pytest.approx(3 / 12)
    assert counts["st_px_per_class"].tolist() == [0, 2, 1]
    assert counts["disagreement"].item() == pytest.approx(0.25)


def test_nothing_valid_is_no_division_by_zero():
    pseudo = PseudoLabels(torch.full((1, 2, 2), 255), torch.zeros(3).long(), torch.tensor(0))
    counts = pseudo_label_counts(pseudo, torch.tensor(0.0))
    assert counts["st_share"] == counts["disagreement"] == 0


def test_without_self_training_all_is_zero():
    counts = no_counts(3, "cpu")
    assert counts["st_px"] == counts["st_share"] == 0
    assert counts["st_px_per_class"].tolist() == [0, 0, 0]
    assert "disagreement" not in counts
