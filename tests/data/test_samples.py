"""Samples: fixed by the seed, spread over photos, all classes."""

import itertools

import numpy as np

from ignite_salak.data.samples import diverse_patches, sample_patches, sample_sources
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
