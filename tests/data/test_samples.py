"""Samples: fixed by the seed, spread over photos, all classes."""

import itertools

import numpy as np
import pytest

from ignite_salak.data.samples import (
    diverse_patches,
    patches_to_label,
    sample_patches,
    sample_sources,
)
from tests.data.indexes import make_index

SEEDS = range(8)


def test_sample_is_fixed_sorted_and_without_repetition():
    patches = np.arange(100, 200)
    sample = sample_patches(patches, 30, seed=1)
    np.testing.assert_array_equal(sample, sample_patches(patches, 30, seed=1))
    assert sorted(set(sample.tolist())) == sample.tolist() and len(sample) == 30
    assert set(sample.tolist()) <= set(patches.tolist())
    samples = [tuple(sample_patches(patches, 30, seed)) for seed in SEEDS]
    assert all(a != b for a, b in itertools.pairwise(samples))
    np.testing.assert_array_equal(sample_patches(patches, 100, 0), patches)


def test_sample_of_source_images_takes_turns(tmp_path):
    index = make_index(tmp_path, {"f": {"a": "-" * 7, "b": "--", "c": "-" * 5, "d": "mm"}})
    unlabeled = np.flatnonzero(~index.has_mask)
    for size, expected in ((4, {1, 2}), (9, {2, 3, 4}), (20, {2, 5, 7})):
        sample = sample_sources(index, unlabeled, size, seed=1)
        np.testing.assert_array_equal(sample, sample_sources(index, unlabeled, size, seed=1))
        assert sorted(set(sample.tolist())) == sample.tolist()
        assert len(sample) == min(size, len(unlabeled)) and set(sample) <= set(unlabeled)
        counts = np.bincount(index.source_ids[sample], minlength=4)
        assert counts[3] == 0 and set(counts[:3].tolist()) <= expected
    samples = [tuple(sample_sources(index, unlabeled, 9, seed)) for seed in SEEDS]
    assert len(set(samples)) > 1
    assert sample_sources(index, unlabeled[:0], 9, seed=1).size == 0


class TestPatchesToLabel:
    @staticmethod
    def labels(index, patches):
        return np.bincount(index.source_ids[patches], minlength=len(index.sources)).tolist()

    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            (0, [0, 0, 0, 0]),
            (1, [0, 0, 1, 0]),
            (3, [0, 1, 1, 1]),
            (5, [0, 2, 2, 1]),
            (6, [0, 3, 2, 1]),
            (9, [1, 3, 4, 1]),
            (99, [4, 3, 6, 1]),
        ],
    )
    def test_photos_with_fewest_labels_first(self, tmp_path, size, expected):
        index = make_index(tmp_path, {"f": {"a": "mm----", "b": "---", "c": "-" * 6, "d": "-"}})
        unlabeled = np.flatnonzero(~index.has_mask)
        for seed in SEEDS:
            chosen = patches_to_label(index, unlabeled, np.array([0, 1]), size, seed)
            assert chosen.tolist() == sorted(set(chosen.tolist()))
            assert set(chosen.tolist()) <= set(unlabeled.tolist())
            assert self.labels(index, chosen) == expected

    def test_evenly_along_the_flights(self, tmp_path):
        # In the index as a scan finds them, in the flight by number.
        photos = sorted(f"DJI_{number}" for number in range(1, 21))
        assert photos[:3] == ["DJI_1", "DJI_10", "DJI_11"]
        folders = {"f1": dict.fromkeys(photos, "---"), "f2": dict.fromkeys("abcd", "---")}
        index = make_index(tmp_path, folders)
        rest = np.arange(len(index))
        labeled = rest[:0]
        rounds = []
        for size in (6, 5, 13):
            chosen = patches_to_label(index, rest, labeled, size, seed=1)
            rounds.append(sorted(index.source_name(photo) for photo in index.source_ids[chosen]))
            rest, labeled = np.setdiff1d(rest, chosen), np.union1d(labeled, chosen)
        assert rounds[0] == sorted([*(f"f1/DJI_{n}" for n in (4, 7, 11, 14, 17)), "f2/c"])
        # The next rounds go between them.
        assert rounds[1] == sorted(f"f1/DJI_{n}" for n in (2, 6, 9, 13, 19))
        assert self.labels(index, labeled) == [1] * 24

    def test_far_from_photos_with_labels(self, tmp_path):
        photos = {f"DJI_{number}": "mmm" if number in (8, 12) else "---" for number in range(20)}
        index = make_index(tmp_path, {"f1": photos, "f2": {"a": "-"}})
        masked = np.flatnonzero(index.has_mask)
        # The photo of the other flight, which has no label, comes first.
        assert index.source_name(20) == "f2/a"
        for size, expected in ((1, set()), (2, {4}), (3, {4, 16}), (4, {2, 5, 16})):
            chosen = patches_to_label(index, np.flatnonzero(~index.has_mask), masked, size, seed=1)
            assert set(index.source_ids[chosen].tolist()) == {20} | expected

    def test_every_flight_has_one_before_one_has_two(self, tmp_path):
        flights = {f"f{n}": {f"DJI_{i}": "--" for i in range(n)} for n in (40, 1, 3, 2)}
        index = make_index(tmp_path, flights)
        everything = np.arange(len(index))
        for size, expected in ((1, [1, 0, 0, 0]), (3, [1, 0, 1, 1]), (5, [2, 1, 1, 1])):
            chosen = patches_to_label(index, everything, everything[:0], size, seed=1)
            assert np.bincount(index.folder_ids[chosen], minlength=4).tolist() == expected

    @pytest.mark.parametrize("size", range(1, 31))
    def test_no_gap_is_much_longer_than_another(self, tmp_path, size):
        index = make_index(tmp_path, {"f": {f"DJI_{number}": "--" for number in range(30)}})
        everything = np.arange(len(index))
        chosen = patches_to_label(index, everything, everything[:0], size, seed=1)
        photos = np.sort(index.source_ids[chosen])
        gaps = np.diff([-1, *photos, 30])
        assert len(set(photos.tolist())) == size and gaps.max() - gaps.min() <= 1

    def test_the_seed_draws_the_patches_and_not_the_photos(self, tmp_path):
        index = make_index(tmp_path, {"f": {f"DJI_{number}": "-" * 9 for number in range(30)}})
        everything, nothing = np.arange(len(index)), np.empty(0, dtype=np.int64)
        choices = [patches_to_label(index, everything, nothing, 10, seed) for seed in SEEDS]
        again = [patches_to_label(index, everything, nothing, 10, seed) for seed in SEEDS]
        np.testing.assert_array_equal(choices, again)
        assert len({tuple(choice) for choice in choices}) == len(SEEDS)
        assert len({tuple(index.source_ids[choice]) for choice in choices}) == 1

    def test_one_that_is_left_out_is_replaced_in_its_photo(self, tmp_path):
        index = make_index(tmp_path, {"f": {f"DJI_{number}": "-" * 4 for number in range(9)}})
        everything, nothing = np.arange(len(index)), np.empty(0, dtype=np.int64)
        chosen = patches_to_label(index, everything, nothing, 4, seed=1)
        rest = np.setdiff1d(everything, chosen[1])
        again = patches_to_label(index, rest, nothing, 4, seed=1)
        np.testing.assert_array_equal(index.source_ids[again], index.source_ids[chosen])
        assert (again != chosen).tolist() == [False, True, False, False]


class TestDiversePatches:
    COUNTS = np.array(
        [
            [100, 0, 0, 0],
            [90, 10, 0, 0],
            [50, 50, 0, 0],
            [0, 0, 0, 0],
            [40, 10, 50, 0],
            [99, 0, 0, 1],
            [10, 0, 90, 0],
        ]
    )

    def test_the_rarest_class_first_then_what_shows_most_classes(self):
        patches = np.arange(7)
        assert diverse_patches(self.COUNTS, patches, 1).tolist() == [5]
        assert diverse_patches(self.COUNTS, patches, 2).tolist() == [4, 5]

    def test_all_classes_are_shown_again_before_an_empty_patch_is_taken(self):
        chosen = [diverse_patches(self.COUNTS, np.arange(7), size).tolist() for size in (4, 6)]
        assert 3 not in chosen[0]
        assert chosen[1] == [0, 1, 2, 4, 5, 6]

    def test_every_class_that_occurs_is_shown(self):
        generator = np.random.default_rng(0)
        counts = np.zeros((500, 6), dtype=np.int64)
        counts[:, 0] = 1000
        for number, patches in enumerate((200, 50, 10, 3, 1), start=1):
            counts[generator.choice(500, patches, replace=False), number] = 200
        chosen = diverse_patches(counts, np.arange(500), 5)
        assert len(set(chosen.tolist())) == 5
        assert (counts[chosen] > 0).any(axis=0).all()
        assert chosen.tolist() == diverse_patches(counts, np.arange(500), 5).tolist()

    def test_patches_that_are_mostly_padding_show_little(self):
        counts = np.array([[5, 5], [60, 40]])
        assert diverse_patches(counts, np.arange(2), 1).tolist() == [1]

    def test_only_the_given_patches_and_no_more_than_there_are(self):
        assert diverse_patches(self.COUNTS, np.array([6, 3, 1]), 5).tolist() == [1, 3, 6]
        assert diverse_patches(self.COUNTS, np.array([0, 3, 6]), 2).tolist() == [0, 6]
        assert diverse_patches(self.COUNTS, np.array([0, 3, 6]), 0).tolist() == []
        assert diverse_patches(np.zeros((9, 2), dtype=np.int64), np.arange(9), 2).tolist() == [0, 1]
