"""Which pixels become pseudo-labels."""

import torch

from ignite_salak.pseudo_labels import content_mask, select_pseudo_labels


def probabilities(*pixels):
    """[[p0, p1, p2], ...] -> [1, 3, 1, N]."""
    return torch.tensor(pixels).T[None, :, None, :]


THRESHOLDS = torch.tensor([0.0, 0.6, 0.8])
VALID = torch.ones(1, 1, 4, dtype=torch.bool)


def test_each_class_has_its_own_threshold():
    p = probabilities([0.1, 0.7, 0.2], [0.1, 0.2, 0.7], [0.1, 0.05, 0.85], [0.3, 0.5, 0.2])
    pseudo = select_pseudo_labels(p, THRESHOLDS, VALID)
    assert pseudo.labels.tolist() == [[[1, 255, 2, 255]]]
    assert pseudo.per_class.tolist() == [0, 1, 1]
    assert pseudo.kept.item() == 2
    assert pseudo.valid.item() == 4


def test_the_threshold_itself_is_enough():
    p = probabilities([0.2, 0.6, 0.2], *[[1.0, 0.0, 0.0]] * 3)
    assert select_pseudo_labels(p, THRESHOLDS, VALID).labels[0, 0, 0] == 1


def test_background_is_never_pseudo_labelled_nor_counted():
    p = probabilities(*[[0.98, 0.01, 0.01]] * 4)
    pseudo = select_pseudo_labels(p, THRESHOLDS, VALID)
    assert (pseudo.labels == 255).all()
    assert pseudo.per_class.tolist() == [0, 0, 0]
    assert pseudo.kept.item() == 0


def test_pixels_without_content_get_no_pseudo_label():
    images = torch.ones(1, 3, 1, 4)
    images[..., 2:] = 0
    images[:, 2, :, 2] = 0.01  # nearly black is content
    valid = content_mask(images)
    assert valid.tolist() == [[[True, True, True, False]]]
    pseudo = select_pseudo_labels(probabilities(*[[0.0, 0.9, 0.1]] * 4), THRESHOLDS, valid)
    assert pseudo.labels.tolist() == [[[1, 1, 1, 255]]]
    assert pseudo.kept.item() == 3
    assert pseudo.valid.item() == 3
