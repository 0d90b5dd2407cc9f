"""Thresholds against quantiles of NumPy, and averages computed by hand."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ignite_salak.pseudo_labels import select_pseudo_labels
from ignite_salak.thresholds import ExpectedThresholds, FixedThresholds, QuantileThresholds
from tests.test_no_synchronisation import Waits, Watch

BIN = 1e-3


def quantile_thresholds(num_classes=3, **options):
    """Thresholds that are the last batch's quantile, where nothing else is said."""
    options = {"ramp": 100, "decay": 0.0, "bounds": (0.0, 1.0), **options}
    return QuantileThresholds(num_classes, **options)


def expected_thresholds(expected=(1, 1, 1), **options):
    """Thresholds by the last batch alone, where nothing else is said."""
    options = {"ramp": 100, "decay": 0.0, "bounds": (0.0, 1.0), **options}
    return ExpectedThresholds(torch.tensor(expected), **options)


def random_batch(classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 48, 48, generator=generator)
    valid = torch.rand(2, 48, 48, generator=generator) < 0.8
    return logits.softmax(1), valid


def pixels(*of_classes):
    """Confidences and labels [1, 1, N] of the given confidences of class 0, 1, ..."""
    confidence = torch.tensor([value for values in of_classes for value in values])
    labels = torch.tensor([c for c, values in enumerate(of_classes) for _ in values])
    batch = confidence[None, None], labels.long()[None, None]
    return batch, torch.ones(1, 1, len(confidence), dtype=torch.bool)


def assert_goes_on(fresh, file):
    """Thresholds restored from a file go on as those that never stopped."""
    whole, first, second = fresh(), fresh(), fresh()
    for number in range(6):
        whole.update(*random_batch(seed=number), number)
    for number in range(3):
        first.update(*random_batch(seed=number), number)
    torch.save(first.state_dict(), file)
    values = second.values
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(values, first.values)
    for number in range(3, 6):
        second.update(*random_batch(seed=number), number)
    assert second.values is values
    assert torch.equal(values, whole.values)


class TestFixedThresholds:
    def test_they_stay(self):
        thresholds = FixedThresholds([0.0, 0.6, 1.0])
        before = thresholds.values
        thresholds.update(*random_batch(), 3)
        thresholds.load_state_dict(thresholds.state_dict())
        assert thresholds.values is before and before.dtype == torch.float32
        assert before.tolist() == pytest.approx([0.0, 0.6, 1.0])
        assert thresholds.state_dict() == {}

    @pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
    def test_what_is_no_confidence_is_refused(self, value):
        with pytest.raises(ValueError, match=f"threshold {value} is not between 0 and 1"):
            FixedThresholds([0.5, value])


class TestQuantileThresholds:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"shares": (0.0, 0.8)}, r"shares \(0.0, 0.8\)"),
            ({"shares": (0.5, 1.1)}, r"shares \(0.5, 1.1\)"),
            ({"ramp": -1}, "ramp of -1"),
            ({"decay": 1.0}, "decay 1.0"),
            ({"start": 1.5}, "start 1.5"),
            ({"bounds": (0.9, 0.5)}, r"bounds \(0.9, 0.5\)"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, options, words):
        with pytest.raises(ValueError, match=words):
            quantile_thresholds(**options)

    @pytest.mark.parametrize("iteration", [0, 30, 100, 5_000])
    def test_equal_numpys_quantiles(self, iteration):
        probabilities, valid = random_batch()
        thresholds = quantile_thresholds()
        thresholds.update(probabilities, valid, iteration)
        confidence, labels = (part[valid].numpy() for part in probabilities.max(1))
        share = 0.5 + 0.3 * min(1.0, iteration / 100)
        expected = [np.quantile(confidence[labels == c], 1 - share) for c in range(3)]
        assert thresholds.values.tolist() == pytest.approx(expected, abs=2 * BIN)

    def test_the_share_that_is_wanted_is_kept_of_every_class(self):
        # Class 1 is sure of itself, class 2 is not: one threshold for both would drop class 2.
        generator = torch.Generator().manual_seed(0)
        sure, unsure = 0.9 + 0.1 * torch.rand(1, 1000, generator=generator), torch.rand(1, 1000)
        confidence = torch.stack([sure, 0.4 + 0.3 * unsure], dim=1)
        labels = torch.tensor([1, 2])[None, :, None].expand(1, 2, 1000)
        probabilities = torch.zeros(1, 3, 2, 1000).scatter_(1, labels[:, None], confidence[:, None])
        valid = torch.ones(1, 2, 1000, dtype=torch.bool)
        thresholds = quantile_thresholds(shares=(0.6, 0.6))
        thresholds.update((confidence, labels), valid, 0)
        kept = select_pseudo_labels(probabilities, thresholds.values, valid).per_class
        assert kept.tolist() == pytest.approx([0, 600, 600], abs=20)

    def test_probabilities_or_their_maximum(self):
        probabilities, valid = random_batch()
        one, other = quantile_thresholds(), quantile_thresholds()
        one.update(probabilities, valid, 7)
        other.update(tuple(probabilities.max(dim=1)), valid, 7)
        assert torch.equal(one.values, other.values)

    def test_quantile_inside_a_bin_by_hand(self):
        # Four pixels in the bin from 0.600: half of them are under its middle.
        batch, valid = pixels([0.6003, 0.6004, 0.6005, 0.6006])
        thresholds = quantile_thresholds(1)
        thresholds.update(batch, valid, 0)
        assert thresholds.values.item() == pytest.approx(0.6005, abs=1e-6)

    def test_between_two_groups_it_is_the_upper_one(self):
        # Half of the pixels are to be kept, and half are sure: the others must not slip in.
        batch, valid = pixels([0.31, 0.32, 0.71, 0.72])
        thresholds = quantile_thresholds(1)
        thresholds.update(batch, valid, 0)
        assert 0.70 < thresholds.values.item() <= 0.71 + 1e-6

    @pytest.mark.parametrize("value", [0.0, 1.0, 1.0 + 1e-6])
    def test_confidences_at_the_ends(self, value):
        batch, valid = pixels([value] * 3)
        thresholds = quantile_thresholds(1)
        thresholds.update(batch, valid, 0)
        assert thresholds.values.item() == pytest.approx(min(value, 1.0), abs=BIN)

    def test_a_share_of_one_keeps_everything(self):
        batch, valid = pixels([0.2, 0.4, 0.9])
        thresholds = quantile_thresholds(1, shares=(1.0, 1.0))
        thresholds.update(batch, valid, 0)
        assert 0.19 < thresholds.values.item() <= 0.2 + 1e-6

    def test_average_and_clipping_by_hand(self):
        thresholds = quantile_thresholds(2, decay=0.9, start=0.8, bounds=(0.5, 0.75))
        first = thresholds.values
        assert first.tolist() == pytest.approx([0.75, 0.75])
        average = np.array([0.8, 0.8])
        for number, quantiles in enumerate([(0.3, 0.9), (0.2, 0.9), (0.1, 0.6)] * 4):
            batch, valid = pixels(*([value] * 5 for value in quantiles))
            thresholds.update(batch, valid, number)
            average += 0.1 * (np.array(quantiles) + 0.5 * BIN - average)
            assert thresholds.values.tolist() == pytest.approx(np.clip(average, 0.5, 0.75), abs=BIN)
        assert average[0] < 0.5 and average[1] > 0.75
        assert thresholds.values is first

    def test_absent_classes_and_invalid_pixels_change_nothing(self):
        (confidence, labels), valid = pixels([0.9, 0.9], [0.6, 0.6, 0.6], [0.3])
        valid[0, 0, 5] = False
        labels[0, 0, 5] = 255  # the class of an invalid pixel may be anything
        thresholds = quantile_thresholds(4, start=0.85)
        thresholds.update((confidence, labels), valid, 0)
        assert thresholds.values.tolist() == pytest.approx([0.9, 0.6, 0.85, 0.85], abs=BIN)
        thresholds.update((confidence, labels), torch.zeros_like(valid), 0)
        assert thresholds.values.tolist() == pytest.approx([0.9, 0.6, 0.85, 0.85], abs=BIN)
        assert thresholds.state_dict()["updates"].tolist() == [1, 1, 0, 0]

    def test_without_a_start_the_average_is_a_mean_at_first(self):
        thresholds = quantile_thresholds(2, decay=0.9, start=None, bounds=(0.0, 0.95))
        assert thresholds.values.tolist() == pytest.approx([0.95, 0.95])
        seen = []
        for number in range(8):
            seen.append(0.4 + 0.05 * number)
            batch, valid = pixels([seen[-1]] * 4)
            thresholds.update(batch, valid, number)
            assert thresholds.values.tolist() == pytest.approx([np.mean(seen), 0.95], abs=BIN)
        for number in range(200):  # then it moves on
            thresholds.update(batch, valid, number)
        assert thresholds.values[0].item() == pytest.approx(seen[-1], abs=BIN)

    @pytest.mark.parametrize(
        ("iteration", "share"), [(0, 0.5), (50, 0.65), (100, 0.8), (1_000, 0.8)]
    )
    def test_share_by_iteration(self, iteration, share):
        assert quantile_thresholds().share(iteration) == pytest.approx(share)

    def test_no_ramp(self):
        assert quantile_thresholds(ramp=0).share(0) == 0.8

    @pytest.mark.parametrize("start", [0.85, None])
    def test_a_run_that_goes_on_equals_one_that_never_stopped(self, tmp_path, start):
        def fresh():
            return quantile_thresholds(decay=0.9, start=start, bounds=(0.3, 0.8))

        assert_goes_on(fresh, tmp_path / "state.pt")

    def test_the_state_of_others_is_refused(self):
        with pytest.raises(
            ValueError, match="not \\['average', 'updates'\\]: the thresholds of the checkpoint"
        ):
            quantile_thresholds().load_state_dict(FixedThresholds([0.5] * 3).state_dict())
        with pytest.raises(ValueError, match="4 thresholds for 3 classes"):
            quantile_thresholds().load_state_dict(quantile_thresholds(4).state_dict())

    def test_bfloat16_and_noncontiguous_probabilities(self):
        probabilities, valid = random_batch()
        exact, coarse = quantile_thresholds(), quantile_thresholds()
        exact.update(probabilities, valid, 0)
        coarse.update(
            probabilities.bfloat16().contiguous(memory_format=torch.channels_last), valid, 0
        )
        assert coarse.values.tolist() == pytest.approx(exact.values.tolist(), abs=5e-3)


class TestExpectedThresholds:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"expected": (1, -1, 1)}, "none may be negative"),
            ({"expected": (0, 0, 0)}, "one must be above 0"),
            ({"expected": (1.0, float("nan"), 1.0)}, "none may be negative"),
            ({"shares": (0.0, 0.8)}, r"shares \(0.0, 0.8\)"),
            ({"ramp": -1}, "ramp of -1"),
            ({"decay": 1.0}, "decay 1.0"),
            ({"start": 1.5}, "start 1.5"),
            ({"bounds": (0.9, 0.5)}, r"bounds \(0.9, 0.5\)"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, options, words):
        with pytest.raises(ValueError, match=words):
            expected_thresholds(**options)

    def test_a_class_found_too_often_is_kept_as_often_as_it_should_be(self):
        # 600, 300 and 100 pixels are found of three classes that should have 200, 300 and 500.
        generator = torch.Generator().manual_seed(0)
        found = [torch.rand(n, generator=generator).tolist() for n in (600, 300, 100)]
        batch, valid = pixels([], *found)
        thresholds = expected_thresholds((0, 2, 3, 5), shares=(0.8, 0.8))
        thresholds.update(batch, valid, 0)
        confidence, labels = batch
        kept = [(confidence[labels == c] >= thresholds.values[c]).sum().item() for c in range(4)]
        assert kept == pytest.approx([0, 160, 240, 100], abs=2)
        other = quantile_thresholds(4, shares=(0.8, 0.8))  # what they are there to avoid
        other.update(batch, valid, 0)
        assert (confidence[labels == 1] >= other.values[1]).sum() == pytest.approx(480, abs=2)

    def test_a_class_found_too_seldom_keeps_all_down_to_the_lower_bound(self):
        batch, valid = pixels([0.9] * 7, [0.5, 0.6, 0.7])
        thresholds = expected_thresholds((1, 1), shares=(1.0, 1.0), bounds=(0.55, 1.0))
        thresholds.update(batch, valid, 0)
        assert thresholds.values[1].item() == pytest.approx(0.55)

    def test_a_class_that_was_never_found_has_the_upper_bound(self):
        thresholds = expected_thresholds(bounds=(0.5, 0.95))
        thresholds.update(*pixels([0.9], [0.9]), 0)
        assert thresholds.values[2].item() == pytest.approx(0.95)

    def test_a_class_that_should_not_occur_is_not_kept(self):
        batch, valid = pixels([0.9, 0.99], [0.9, 0.8])
        thresholds = expected_thresholds((1, 0), shares=(1.0, 1.0))
        thresholds.update(batch, valid, 0)
        assert thresholds.values[1].item() > 0.9

    @pytest.mark.parametrize(
        ("iteration", "share"), [(0, 0.5), (50, 0.65), (100, 0.8), (1_000, 0.8)]
    )
    def test_the_share_grows(self, iteration, share):
        batch, valid = pixels(torch.linspace(0.001, 0.999, 2_000).tolist())
        thresholds = expected_thresholds((1,))
        thresholds.update(batch, valid, iteration)
        assert thresholds.share(iteration) == pytest.approx(share)
        assert thresholds.values.item() == pytest.approx(1.0 - share, abs=2 * BIN)

    def test_the_average_over_batches_by_hand(self):
        # Class 0 is found in every batch, in pixels of another confidence.
        thresholds = expected_thresholds((1, 1), decay=0.75, shares=(1.0, 1.0), start=0.6)
        values = thresholds.values
        assert values.tolist() == pytest.approx([0.6, 0.6])
        mass = np.zeros(5)
        for number in range(5):
            batch, valid = pixels([0.1 + 0.2 * number] * 10)
            thresholds.update(batch, valid, number)
            weight = max(1 / (number + 1), 0.25)
            mass += weight * (10 * np.eye(5)[number] - mass)
            # Half of all pixels are expected: those of the highest confidences.
            above = np.cumsum(mass[::-1])[::-1]
            expected = 0.1 + 0.2 * np.flatnonzero(above >= 5 - 1e-4).max()
            assert values[0].item() == pytest.approx(expected, abs=BIN)
        assert thresholds.values is values

    def test_a_start_that_is_an_integer(self):
        thresholds = expected_thresholds(start=1)
        assert thresholds.values.dtype == torch.float32
        assert thresholds.values.tolist() == [1.0, 1.0, 1.0]

    def test_invalid_pixels_change_nothing(self):
        batch, valid = pixels([0.9, 0.8], [0.7])
        thresholds = expected_thresholds((1, 1), start=0.6)
        thresholds.update(batch, torch.zeros_like(valid), 0)
        assert thresholds.values.tolist() == pytest.approx([0.6, 0.6])
        thresholds.update(batch, valid, 0)
        before = thresholds.values.clone()
        thresholds.update(batch, torch.zeros_like(valid), 0)
        assert torch.equal(thresholds.values, before)
        assert thresholds.state_dict()["updates"] == 1

    def test_a_run_that_goes_on_equals_one_that_never_stopped(self, tmp_path):
        def fresh():
            return expected_thresholds((1, 2, 3), decay=0.9, bounds=(0.3, 0.8))

        assert_goes_on(fresh, tmp_path / "state.pt")

    def test_the_state_of_others_is_refused(self):
        with pytest.raises(ValueError, match="'histogram', 'updates', 'values'"):
            expected_thresholds().load_state_dict(quantile_thresholds().state_dict())
        with pytest.raises(ValueError, match="4 thresholds for 3 classes"):
            expected_thresholds().load_state_dict(expected_thresholds((1,) * 4).state_dict())


@pytest.mark.parametrize("make", [quantile_thresholds, expected_thresholds])
def test_ranks_together_see_all_pixels(monkeypatch, make):
    def sums(function):
        monkeypatch.setattr("ignite_salak.thresholds.sum_over_ranks", function)

    probabilities, valid = random_batch()
    whole, first, second = (make() for _ in range(3))
    whole.update(probabilities, valid, 5)
    of_second = []
    sums(lambda counts: of_second.append(counts) or counts)
    second.update(probabilities[1:], valid[1:], 5)
    assert not torch.equal(second.values, whole.values)
    sums(lambda counts: counts + of_second[0])
    first.update(probabilities[:1], valid[:1], 5)
    assert torch.equal(first.values, whole.values)


@pytest.mark.parametrize("start", [0.85, None])
def test_nothing_waits_for_the_gpu(start):
    watch = Watch()
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        thresholds = quantile_thresholds(start=start, device="cuda")
        probabilities = torch.rand(2, 3, 8, 8, device="cuda")
        valid = torch.ones(2, 8, 8, dtype=torch.bool, device="cuda")
        watch.strict = True
        for number in range(3):
            thresholds.update(probabilities, valid, number)
        assert thresholds.values.device.type == "cuda"
        with pytest.raises(Waits):
            thresholds.values.tolist()


def test_nothing_waits_for_the_gpu_where_pixels_are_expected():
    expected, watch = torch.ones(3), Watch()
    with FakeTensorMode(allow_non_fake_inputs=True), watch:
        thresholds = ExpectedThresholds(expected, ramp=100, device="cuda")
        probabilities = torch.rand(2, 3, 8, 8, device="cuda")
        valid = torch.ones(2, 8, 8, dtype=torch.bool, device="cuda")
        watch.strict = True
        for number in range(3):
            thresholds.update(probabilities, valid, number)
        assert thresholds.values.device.type == "cuda"
        with pytest.raises(Waits):
            thresholds.values.tolist()
