"""The quality of pseudo-labels, against the selection itself and hand-counted pixels."""

import math

import numpy as np
import pytest
import torch

from ignite_salak.metrics import PseudoLabelQuality
from ignite_salak.pseudo_labels import select_pseudo_labels

NAMES = ("background", "water", "road", "crop")


def random_batch(seed, shape=(3, 24, 24), sharpness=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn((shape[0], 4, *shape[1:]), generator=generator)
    probabilities = logits.softmax(dim=1)
    target = torch.randint(0, 4, shape, generator=generator)
    agreeing = torch.rand(shape, generator=generator) < probabilities.amax(dim=1)
    target = torch.where(agreeing, probabilities.argmax(dim=1), target)
    target[torch.rand(shape, generator=generator) < 0.1] = 255
    content = torch.rand(shape, generator=generator) < 0.9
    return probabilities, target, content


def output_of(probabilities, target, content):
    confidence, pred = probabilities.max(dim=1)
    return pred, target, confidence, content


def measure(*batches, bins=1000):
    metric = PseudoLabelQuality(NAMES, bins)
    for batch in batches:
        metric.update(output_of(*batch))
    return metric.compute()


THRESHOLDS = [0.65, 0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.831, 0.95, 0.999, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_agrees_exactly_with_the_selection_at_the_edges_of_the_bins(seed):
    batches = [random_batch(seed), random_batch(seed + 100)]
    counts = measure(*batches)
    generator = np.random.default_rng(seed)
    for thresholds in [[t] * 4 for t in THRESHOLDS] + generator.choice(THRESHOLDS, (5, 4)).tolist():
        kept, right = np.zeros(4, int), np.zeros(4, int)
        for probabilities, target, content in batches:
            chosen = select_pseudo_labels(
                probabilities, torch.tensor(thresholds), content & (target != 255)
            )
            kept += chosen.per_class.numpy()
            right += [int(((chosen.labels == c) & (target == c)).sum()) for c in range(4)]
        judged = counts.judge(thresholds)
        assert [quality.kept for quality in judged] == [*kept[1:], kept.sum()]
        assert [quality.right for quality in judged] == [*right[1:], right.sum()]


def test_confidences_on_the_edges_themselves():
    confidence = (torch.arange(0, 1001).double() / 1000).float()[None, None]
    ones = torch.ones_like(confidence).long()
    metric = PseudoLabelQuality(NAMES)
    metric.update((ones, ones, confidence, ones.bool()))
    counts = metric.compute()
    for edge in range(1001):
        expected = int((confidence >= torch.tensor(edge / 1000)).sum())
        assert counts.judge_all(edge / 1000)[0].kept == expected == 1001 - edge


def hand_made():
    """Ten pixels, by hand: predicted class, truth, confidence."""
    pixels = [
        *((1, 1, 0.95), (1, 1, 0.85), (1, 2, 0.75), (1, 1, 0.45)),
        *((2, 2, 0.65), (2, 1, 0.97)),
        (0, 0, 0.99),
        *((3, 3, 0.99), (1, 255, 0.99)),  # the first has no content, the second no truth
        (0, 3, 0.55),
    ]
    pred, target, confidence = (
        torch.tensor(values)[None, None] for values in zip(*pixels, strict=True)
    )
    content = torch.tensor([i != 7 for i in range(10)])[None, None]
    metric = PseudoLabelQuality(NAMES)
    metric.update((pred, target, confidence, content))
    return metric.compute()


def test_hand_counted_qualities():
    water, road, crop, everything = hand_made().judge([0.1, 0.7, 0.6, 0.5])
    assert (water.kept, water.right, water.predicted, water.truth) == (3, 2, 4, 4)
    assert water.precision == 2 / 3
    assert water.kept_share == 3 / 4
    assert water.recall == 2 / 4
    assert water.share_of_kept == 3 / 5
    assert water.share_of_truth == 4 / 7
    assert (road.kept, road.right, road.recall) == (2, 1, 1 / 2)
    assert crop.kept == 0
    assert math.isnan(crop.precision)
    assert math.isnan(crop.kept_share)
    assert crop.recall == 0
    assert (everything.kept, everything.right, everything.predicted) == (5, 3, 8)
    assert everything.truth == 7
    assert (everything.precision, everything.kept_share, everything.recall) == (3 / 5, 5 / 8, 3 / 7)


def test_the_lowest_threshold_of_a_wanted_precision():
    counts = hand_made()
    find = counts.threshold_for_precision
    assert find(1, 0.75, min_pixels=1) == 0.0  # 3 of 4 are right without a threshold
    # The wrong pixel's confidence is 0.75 exactly, so it is gone at the next edge.
    assert find(1, 0.9, min_pixels=1) == 0.751
    assert find(1, 0.9, min_pixels=3) is None
    assert counts.best_threshold(1, min_pixels=3) == 0.0
    assert find(2, 0.9, min_pixels=1) is None
    assert counts.best_threshold(2, min_pixels=1) == 0.0
    assert counts.best_threshold(3, min_pixels=1) is None
    assert find(3, 0.0, min_pixels=1) is None


@pytest.mark.parametrize("wanted", [0.7, 0.8])
def test_the_found_threshold_gives_what_was_wanted_and_the_one_below_does_not(wanted):
    counts = measure(*(random_batch(seed) for seed in range(4)))
    found = counts.threshold_for_precision(2, wanted, min_pixels=10)
    assert found is not None
    assert counts.judge_all(found)[1].precision >= wanted
    if found:
        assert counts.judge_all(found - 0.001)[1].precision < wanted


def test_thresholds_between_two_edges_are_rounded_up():
    counts = measure(random_batch(0), bins=10)
    assert counts.judge_all(0.61)[0].kept == counts.judge_all(0.7)[0].kept
    assert counts.judge_all(0.6)[0].kept > counts.judge_all(0.7)[0].kept
    assert counts.bins == 10


def test_memory_does_not_grow_and_reset_forgets():
    metric = PseudoLabelQuality(NAMES)
    size = metric.counts.numel()
    for seed in range(3):
        metric.update(output_of(*random_batch(seed)))
    assert metric.counts.numel() == size == 4 * 1001 * 2
    metric.reset()
    assert metric.compute().judge_all(0.0)[-1].predicted == 0


def test_nothing_to_judge_is_nan_not_a_crash():
    counts = PseudoLabelQuality(NAMES).compute()
    assert all(math.isnan(quality.precision) for quality in counts.judge_all(0.5))
    assert counts.best_threshold(1, min_pixels=0) is None


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="0 bins"):
        PseudoLabelQuality(NAMES, 0)
    counts = hand_made()
    with pytest.raises(ValueError, match="3 thresholds for 4"):
        counts.judge([0.5] * 3)
    with pytest.raises(ValueError, match=r"threshold 1\.5"):
        counts.judge_all(1.5)
    ones = torch.ones(1, 1, 2)
    with pytest.raises(ValueError, match="differ"):
        PseudoLabelQuality(NAMES).update((ones, ones, ones[..., :1], ones))
    with pytest.raises(ValueError, match="target 9"):
        PseudoLabelQuality(NAMES).update((ones, 9 * ones, ones, ones))
    with pytest.raises(ValueError, match="label 4"):
        PseudoLabelQuality(NAMES).update((4 * ones, ones, ones, ones))


def test_counts_are_summed_over_ranks():
    import ignite.distributed as idist

    with idist.Parallel(backend="gloo", nproc_per_node=2, start_method="spawn") as parallel:
        parallel.run(_check_two_ranks)


def _check_two_ranks(rank):
    metric = PseudoLabelQuality(NAMES)
    ones = torch.ones(1, 1, 4)
    metric.update((ones, ones * (rank + 1), ones * 0.75, ones.bool()))
    water = metric.compute().judge_all(0.75)[0]
    assert (water.kept, water.right, water.truth, water.truth_of_all) == (8, 4, 4, 8)
