"""Pixel counts, weights, unusable files, and a cache that notices changes."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from ignite_salak.classes import ClassMap
from ignite_salak.data import balance
from ignite_salak.data.balance import (
    balanced_weights,
    check_unlisted,
    clipped_weights,
    estimated_pixels,
    format_balance,
    inspect_masks,
)
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.patches import scan_patches


def blocks(*counts, size=16):
    """A mask of the given number of pixels of class 0, 1, ..., the rest 255."""
    labels = np.full(size * size, 255, np.uint8)
    labels[: sum(counts)] = np.repeat(np.arange(len(counts)), counts)
    return labels.reshape(size, size)


@pytest.fixture
def root(tmp_path, add_patch):
    root = tmp_path / "data"
    add_patch(root / "f", "a_patch_0_0", blocks(200, 56))
    add_patch(root / "f", "a_patch_0_1", blocks(100, 0, 16))
    add_patch(root / "f", "b_patch_0_0")
    add_patch(root / "g", "a_patch_0_0", blocks(0, 256))
    return root


@pytest.fixture
def inspect(root, classes):
    """Inspects all masks of the root."""

    def run(reader=None, **options):
        index = scan_patches(root, cache=False)
        return inspect_masks(
            index, np.flatnonzero(index.has_mask), reader or MaskReader(classes), **options
        )

    return run


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the images decoded since."""
    paths = []
    read = balance.read_image
    monkeypatch.setattr(balance, "read_image", lambda path: paths.append(path) or read(path))
    return paths


def test_weights_by_hand():
    # n = 100 pixels, k = 4 classes: 100 / (4 * count)
    np.testing.assert_allclose(balanced_weights([50, 25, 20, 5]), [0.5, 1.0, 1.25, 5.0])


def test_weights_equal_those_of_scikit_learn():
    counts = np.array([2945, 22, 1383, 287, 469, 4054, 840])
    labels = np.repeat(np.arange(7), counts)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    np.testing.assert_allclose(balanced_weights(counts), expected)


def test_absent_class_has_weight_one_and_does_not_count():
    weights = balanced_weights(np.array([30, 0, 10]))
    np.testing.assert_allclose(weights, [40 / (2 * 30), 1.0, 40 / (2 * 10)])


class TestEstimatedPixels:
    def test_by_hand(self):
        counts = np.array([[5, 0], [0, 7], [9, 9], [0, 4], [8, 8], [3, 3]])
        sources = np.array([0, 0, 0, 1, 1, 2])
        labeled, unlabeled = np.array([0, 1, 3]), np.array([2, 4, 5])
        # The first photo has three patches for two labelled, the second two for one.
        found = estimated_pixels(counts, sources, labeled, unlabeled)
        assert found.tolist() == [8, 18] and found.dtype == np.int64  # 7.5, 10.5 + 8

    def test_of_whole_photos_it_is_the_sum(self):
        generator = np.random.default_rng(0)
        counts = generator.integers(0, 2**40, size=(90, 3))
        sources = np.repeat(np.arange(30), 3)
        labeled = np.arange(30, 60)
        rest = np.setdiff1d(np.arange(90), labeled)
        found = estimated_pixels(counts, sources, labeled, rest)
        np.testing.assert_array_equal(found, counts[labeled].sum(axis=0))

    def test_right_in_the_mean_where_photos_give_as_many_patches_each(self):
        generator = np.random.default_rng(1)
        sources = np.repeat(np.arange(8), [3, 6, 9, 12, 15, 18, 21, 24])
        # The larger the photo, the more of its pixels are of the last class.
        counts = generator.integers(0, 100, size=(len(sources), 3))
        counts[:, 2] *= sources
        total, estimates, plain = counts.sum(axis=0), [], []
        for _ in range(2_000):
            drawn = generator.permutation(len(sources))
            labeled = np.sort(
                np.concatenate([drawn[sources[drawn] == photo][:2] for photo in range(8)])
            )
            rest = np.setdiff1d(drawn, labeled)
            estimates.append(estimated_pixels(counts, sources, labeled, rest))
            plain.append(counts[labeled].sum(axis=0) * len(sources) / len(labeled))
        np.testing.assert_allclose(np.mean(estimates, axis=0), total, rtol=0.02)
        assert np.mean(plain, axis=0)[2] < 0.8 * total[2]


@pytest.mark.parametrize("weights", [balanced_weights, clipped_weights])
def test_no_pixel_at_all_is_refused(weights):
    with pytest.raises(ValueError, match="no labelled pixel"):
        weights([0, 0])


def test_clipped_weights_by_hand():
    # Shares 0.64, 0.32, 0.04: roots of their inverses 1.25, 1.7678, 5; mean 2.6726.
    raw = np.array([1.25, 1.7677670, 5.0])
    np.testing.assert_allclose(clipped_weights([64, 32, 4]), raw / raw.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        clipped_weights([64, 32, 4], limit=1.5), [*(raw / raw.mean())[:2], 1.5], rtol=1e-6
    )


def test_clipped_weights_leave_absent_classes_out():
    with_absent = clipped_weights([64, 0, 32, 4])
    assert with_absent[1] == 1.0
    np.testing.assert_allclose(with_absent[[0, 2, 3]], clipped_weights([64, 32, 4]))


def test_power_of_the_clipped_weights():
    counts = np.array([2945, 22, 1383, 287, 469, 4054, 840])
    assert clipped_weights(counts, power=0.0).tolist() == [1.0] * 7
    balanced = balanced_weights(counts)
    np.testing.assert_allclose(
        clipped_weights(counts, power=1.0, limit=np.inf), balanced / balanced.mean()
    )
    assert clipped_weights(counts * 1000).max() == clipped_weights(counts).max() < 4.0
    assert clipped_weights(counts, power=1.0).max() == 4.0


@pytest.mark.parametrize(("options", "words"), [({"power": -1}, "power"), ({"limit": 0}, "limit")])
def test_bad_clipping_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        clipped_weights([1, 2], **options)


def test_table(classes):
    counts = np.array([3_000_000, 0, 1_000_000])
    header, *rows = format_balance(classes, counts, balanced_weights(counts)).splitlines()
    assert header.split() == ["class", "pixels", "share", "weight"]
    assert [row.split() for row in rows] == [
        ["background", "3,000,000", "75.00%", "0.667"],
        ["water", "0", "0.00%", "absent"],
        ["road", "1,000,000", "25.00%", "2.000"],
    ]
    assert "absent" in format_balance(classes, counts * 0, np.ones(3))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_counts_per_patch(inspect, workers):
    statistics = inspect(workers=workers)
    assert statistics.counts.tolist() == [[200, 56, 0], [100, 0, 16], [0, 0, 0], [0, 256, 0]]
    assert statistics.ignored.tolist() == [0, 140, 0, 0]
    assert not statistics.unlisted and not statistics.bad_files


def test_only_the_given_patches_are_inspected(root, classes, decoded):
    index = scan_patches(root, cache=False)
    statistics = inspect_masks(index, np.array([3]), MaskReader(classes))
    assert statistics.counts.sum(axis=1).tolist() == [0, 0, 0, 256]
    assert decoded == [index.image_path(3)]


class TestUnlistedColors:
    @pytest.fixture
    def paint(self, root, classes, save):
        def paint_mask(pixels, colors=((1, 2, 3),)):
            mask = classes.palette[blocks(256)]
            for position in range(pixels):
                mask.reshape(-1, 3)[position] = colors[position % len(colors)]
            for path in sorted(root.rglob("masks/*.png")):
                save(path, classes.palette[blocks(256)])
            save(root / "f" / "masks" / "a_patch_0_0.png", mask)

        return paint_mask

    def test_over_5_percent_is_refused_with_the_commonest(self, paint, inspect, private_cache):
        paint(60, [(1, 2, 3), (1, 2, 3), (9, 9, 9)])  # 60 of 768 pixels, 40 of one colour
        for _ in range(2):  # from the masks and from the cache
            with pytest.raises(ValueError, match=r"7\.81 %.*2 colour.*is 1 2 3 \(40 pixels"):
                inspect()
        assert len(list(private_cache.iterdir())) == 1

    def test_less_is_a_warning_with_the_count(self, paint, inspect, caplog):
        paint(30)
        for _ in range(2):
            caplog.clear()
            statistics = inspect()
            (record,) = caplog.records
            assert "3.91 %" in record.getMessage() and "1 2 3 (30 pixels)" in record.getMessage()
            assert statistics.unlisted == {(1, 2, 3): 30}
            assert statistics.ignored[0] == 30 and statistics.counts[0].tolist() == [226, 0, 0]

    def test_exactly_5_percent_passes(self, classes, caplog):
        check_unlisted({(1, 2, 3): 50}, 1000, classes)
        assert "5.00 %" in caplog.text
        with pytest.raises(ValueError, match="background, water, road"):
            check_unlisted({(1, 2, 3): 50, (3, 2, 1): 1}, 1000, classes)

    def test_none_says_nothing(self, classes, caplog):
        check_unlisted({}, 0, classes)
        assert not caplog.records


class TestBadFiles:
    def damage(self, root):
        (root / "f" / "masks" / "a_patch_0_1.png").write_bytes(b"")
        (root / "g" / "images" / "a_patch_0_0.png").write_bytes(b"no image")

    def test_error_names_the_first_and_counts_the_rest(self, root, inspect):
        self.damage(root)
        with pytest.raises(BadFileError, match=r"\(and 1 more\).*--skip-bad-files") as caught:
            inspect()
        assert str(caught.value).startswith(str(root / "f" / "masks" / "a_patch_0_1.png"))

    def test_skip_lists_them(self, root, inspect, private_cache):
        self.damage(root)
        statistics = inspect(skip_bad_files=True)
        assert list(statistics.bad_files) == [1, 3]
        assert "is empty" in statistics.bad_files[1] and "no image" in statistics.bad_files[3]
        assert statistics.counts.tolist() == [[200, 56, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
        assert not list(private_cache.iterdir())

    def test_all_bad_is_listed_too(self, root, inspect):
        for path in root.rglob("masks/*.png"):
            path.write_bytes(b"")
        statistics = inspect(skip_bad_files=True)
        assert list(statistics.bad_files) == [0, 1, 3]
        assert statistics.counts.shape == (4, 3) and not statistics.counts.any()

    def test_other_size_than_the_image_is_bad(self, root, inspect, save):
        path = save(root / "f" / "masks" / "a_patch_0_0.png", np.zeros((16, 8), np.uint8))
        with pytest.raises(BadFileError, match="mask is 8 x 16 pixels, its image 16 x 16"):
            inspect()
        assert str(path) in inspect(skip_bad_files=True).bad_files[0]

    def test_index_out_of_range_is_bad(self, root, inspect, save):
        save(root / "f" / "masks" / "a_patch_0_0.png", np.full((16, 16), 3, np.uint8))
        with pytest.raises(BadFileError, match="index 3 is out of range"):
            inspect()


class TestCache:
    def test_second_run_decodes_nothing(self, inspect, decoded):
        first = inspect()
        assert len(decoded) == 3
        again = inspect()
        assert len(decoded) == 3
        np.testing.assert_array_equal(first.counts, again.counts)
        np.testing.assert_array_equal(first.ignored, again.ignored)

    def test_root_by_another_way_finds_it(self, root, classes, inspect, decoded, monkeypatch):
        counts = inspect().counts
        monkeypatch.chdir(root.parent)
        index = scan_patches(Path("data"), cache=False)
        again = inspect_masks(index, np.flatnonzero(index.has_mask), MaskReader(classes))
        assert len(decoded) == 3
        np.testing.assert_array_equal(again.counts, counts)

    def test_many_masks_are_announced_but_not_twice(self, inspect, caplog, monkeypatch):
        caplog.set_level(logging.INFO)
        inspect(cache=False)
        assert not caplog.records
        monkeypatch.setattr(balance, "_MANY_MASKS", 3)
        for _ in range(2):
            inspect()
        assert [record.getMessage() for record in caplog.records] == [
            "checking 3 masks and their images; this takes a while"
        ]

    def test_no_cache_on_request(self, inspect, decoded, private_cache):
        inspect(cache=False)
        inspect(cache=False)
        assert len(decoded) == 6 and not list(private_cache.iterdir())

    def test_changed_mask_is_counted_again(self, root, inspect, save):
        path = root / "g" / "masks" / "a_patch_0_0.png"
        before = path.stat()
        assert inspect().counts[3].tolist() == [0, 256, 0]
        save(path, blocks(0, 0, 256))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
        assert path.stat().st_size == before.st_size
        assert inspect().counts[3].tolist() == [0, 0, 256]

    def test_changed_image_is_looked_at_again(self, root, inspect):
        inspect()
        (root / "g" / "images" / "a_patch_0_0.png").write_bytes(b"")
        with pytest.raises(BadFileError, match="empty"):
            inspect()

    def test_other_classes_or_format_are_counted_anew(self, inspect, decoded, classes):
        inspect()
        more = ClassMap((*classes.names, "palm"), (*classes.colors, (1, 1, 2)))
        assert inspect(MaskReader(more)).counts.shape == (4, 4)
        inspect(MaskReader(classes, "color"))
        assert len(decoded) == 9

    def test_damaged_cache_is_replaced(self, inspect, decoded, private_cache):
        expected = inspect().counts
        (file,) = private_cache.iterdir()
        whole = file.read_bytes()
        for number, content in enumerate((b"", b"text", whole[:-10], whole[:100])):
            file.write_bytes(content)
            np.testing.assert_array_equal(inspect().counts, expected)
            assert len(decoded) == 3 * (number + 2)
