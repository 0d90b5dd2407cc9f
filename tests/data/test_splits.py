"""No photo on both sides; blocks of neighbours."""

import numpy as np
import pytest

from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import Split, masked_patches, split_patches
from tests.data.indexes import make_index

SEEDS = range(8)


def count_masks(index, num_classes=2):
    """Every class in every mask."""
    return np.repeat(index.has_mask[:, None] * 10, num_classes, axis=1)


def sources_of(index, patches):
    return set(index.source_ids[patches].tolist())


def pools_of(split):
    return split.labeled, split.validation, split.unlabeled


class TestDrawnValidation:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.95])
    def test_no_source_is_in_validation_and_elsewhere(self, index, seed, fraction):
        split = split_patches(index, count_masks(index), seed=seed, val_fraction=fraction)
        labeled, validation, unlabeled = (sources_of(index, pool) for pool in pools_of(split))
        assert not validation & (labeled | unlabeled)
        assert labeled and validation and unlabeled
        assert index.has_mask[split.labeled].all() and index.has_mask[split.validation].all()
        everything = np.concatenate(pools_of(split))
        assert len(set(everything.tolist())) == len(everything)
        # What is in no pool: patches of validation photos that have no mask.
        left_out = np.setdiff1d(np.arange(len(index)), everything)
        assert sources_of(index, left_out) <= validation and not index.has_mask[left_out].any()
        assert len(validation) == max(1, round(31 * fraction))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_validation_is_one_block_of_every_folder(self, index, seed):
        split = split_patches(index, count_masks(index), seed=seed, val_fraction=0.3)
        for folder, held_out in ((0, 6), (1, 3)):
            numbers = sorted(
                int(index.sources[source][1].removeprefix("DJI_"))
                for source in sources_of(index, split.validation)
                if index.sources[source][0] == folder
            )
            assert len(numbers) == held_out
            assert numbers == list(range(numbers[0], numbers[0] + held_out))

    def test_masked_patches_are_labelled_and_all_others_unlabelled(self, index):
        split = split_patches(index, count_masks(index))
        outside = ~np.isin(index.source_ids, index.source_ids[split.validation])
        np.testing.assert_array_equal(split.labeled, np.flatnonzero(outside & index.has_mask))
        np.testing.assert_array_equal(split.unlabeled, np.flatnonzero(outside & ~index.has_mask))
        assert {"f3/DJI_1"} <= set(split.sources(index)["unlabelled"])

    def test_seed_decides(self, index):
        digests = [
            split_patches(index, count_masks(index), seed=seed).digest(index)
            for seed in (*SEEDS, *SEEDS)
        ]
        assert digests[: len(SEEDS)] == digests[len(SEEDS) :]
        assert len(set(digests)) > len(SEEDS) // 2

    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_class_in_both_halves_where_possible(self, tmp_path, seed, caplog):
        # Only the 3 of 17 blocks that hold photos 2 and 3 but not 9 and 17 do.
        index = make_index(tmp_path, {"f": {f"DJI_{i:02d}": "m" for i in range(20)}})
        counts = np.zeros((20, 3), dtype=np.int64)
        counts[:, 0] = 100
        counts[[2, 9], 1] = 1
        counts[[3, 17], 2] = 1
        split = split_patches(index, counts, seed=seed)
        assert (counts[split.labeled].sum(axis=0) > 0).all()
        assert (counts[split.validation].sum(axis=0) > 0).all()
        assert not caplog.records

    @pytest.mark.parametrize("photo", range(6))
    def test_a_class_of_one_photo_is_warned_of(self, tmp_path, caplog, photo):
        index = make_index(tmp_path, {"f": {f"DJI_{i}": "m" for i in range(6)}})
        counts = np.zeros((6, 4), dtype=np.int64)
        counts[:, 0] = 100
        counts[photo, 2] = 5
        split = split_patches(index, counts)
        lacking = "training" if photo in split.validation else "validation"
        (record,) = caplog.records
        assert f"{lacking} lacks class index 2" in record.getMessage()
        assert "index 1" not in record.getMessage() and "index 3" not in record.getMessage()

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 1.5, float("nan")])
    def test_impossible_share_is_refused(self, index, fraction):
        with pytest.raises(ValueError, match=f"--val-split {fraction}"):
            split_patches(index, count_masks(index), val_fraction=fraction)

    def test_one_labelled_photo_cannot_be_divided(self, tmp_path):
        index = make_index(tmp_path, {"f": {"a": "mmmm", "b": "--"}})
        with pytest.raises(ValueError, match="at least two"):
            split_patches(index, count_masks(index))

    @pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
    def test_two_labelled_photos_are_one_and_one(self, tmp_path, fraction):
        index = make_index(tmp_path, {"f1": {"a": "mm"}, "f2": {"b": "m"}})
        split = split_patches(index, count_masks(index), val_fraction=fraction)
        assert (
            len(sources_of(index, split.labeled)) == len(sources_of(index, split.validation)) == 1
        )

    @pytest.mark.parametrize("seed", SEEDS)
    def test_excluded_patches_are_in_no_pool(self, index, seed):
        excluded = tuple(range(0, len(index), 3))
        split = split_patches(index, count_masks(index), seed=seed, excluded=excluded)
        assert not set(excluded) & set(np.concatenate(pools_of(split)).tolist())

    def test_nothing_left_after_exclusion_is_refused(self, tmp_path):
        index = make_index(tmp_path, {"f": {"a": "m", "b": "m"}})
        with pytest.raises(ValueError, match=r"no usable (labelled|validation) patch"):
            split_patches(index, count_masks(index), excluded=(0,))

    def test_synthetic_plantation(self, plantation):
        index = scan_patches(plantation.root)
        split = split_patches(
            index, count_masks(index), labeled_files=plantation.labeled_files, val_fraction=0.5
        )
        assert [len(pool) for pool in pools_of(split)] == [32, 32, 64]
        assert not sources_of(index, split.validation) & sources_of(index, split.labeled)


class TestLists:
    def test_val_files_are_all_of_validation(self, index, write):
        val_files = write("f1/DJI_3\nf2/DJI_100\n")
        splits = [
            split_patches(index, count_masks(index), val_files=val_files, seed=seed)
            for seed in (0, 1)
        ]
        assert splits[0].digest(index) == splits[1].digest(index)
        assert splits[0].sources(index)["validation"] == ["f1/DJI_3", "f2/DJI_100"]
        # DJI_3 has patches without masks: they must not be trained on either.
        assert not sources_of(index, splits[0].validation) & sources_of(index, splits[0].unlabeled)
        assert len(sources_of(index, splits[0].labeled)) == 29

    def test_photos_not_listed_are_trained_without_masks(self, index, write):
        labeled_files = write("\n".join(f"f1/DJI_{i}.JPG" for i in range(1, 11)))
        split = split_patches(index, count_masks(index), labeled_files=labeled_files)
        sources = split.sources(index)
        assert len(sources["labelled"]) == 8 and len(sources["validation"]) == 2
        assert "f2/DJI_100" in sources["unlabelled"] and "f1/DJI_20" in sources["unlabelled"]

    @pytest.mark.parametrize("seed", SEEDS)
    def test_namesakes_without_masks_do_not_count_as_labelled(self, index, write, seed):
        # f3 has photos of the same names, unlabelled: another flight, not what the list means.
        labeled_files = write("\n".join(f"DJI_{i}.JPG" for i in range(1, 11)))
        split = split_patches(
            index, count_masks(index), labeled_files=labeled_files, val_fraction=0.3, seed=seed
        )
        sources = split.sources(index)
        assert len(sources["labelled"]) == 7 and len(sources["validation"]) == 3
        assert all(name.startswith("f1/") for name in sources["labelled"] + sources["validation"])
        assert {f"f3/DJI_{i}" for i in range(1, 11)} <= set(sources["unlabelled"])

    def test_both_lists(self, index, write):
        lists = {
            "labeled_files": write("f1/DJI_1\nf1/DJI_2", "labeled.txt"),
            "val_files": write("f2/DJI_95", "val.txt"),
        }
        split = split_patches(index, count_masks(index), **lists)
        assert split.sources(index)["labelled"] == ["f1/DJI_1", "f1/DJI_2"]
        assert split.sources(index)["validation"] == ["f2/DJI_95"]
        masked = masked_patches(index, **lists)
        np.testing.assert_array_equal(masked, np.union1d(split.labeled, split.validation))

    def test_overlap_is_refused(self, index, write):
        lists = {
            "labeled_files": write("f1/DJI_1\nf1/DJI_2\nf2/DJI_95", "labeled.txt"),
            "val_files": write("DJI_2.JPG\nDJI_95.JPG", "val.txt"),
        }
        with pytest.raises(ValueError, match=r"f1/DJI_2 is in .*labeled\.txt and in .*\(2 in both"):
            split_patches(index, count_masks(index), **lists)

    @pytest.mark.parametrize(
        "text",
        [
            "f1/DJI_1_patch_000_001.png\nf2/DJI_95_patch_000_002\nf1/DJI_4\n",
            "DJI_4.JPG\r\nF1\\dji_1_PATCH_000_001.PNG\r\n# spread\r\nDJI_95_patch_000_002.tif\r\n",
        ],
    )
    def test_single_patches(self, index, write, text):
        lists = {"labeled_files": write(text, "labeled.txt"), "val_files": write("f2/DJI_100")}
        split = split_patches(index, count_masks(index), **lists)
        whole = ["f1/DJI_4_patch_000_000", "f1/DJI_4_patch_000_001"]
        chosen = ["f1/DJI_1_patch_000_001", *whole, "f2/DJI_95_patch_000_002"]
        assert [index.patch_name(patch) for patch in split.labeled.tolist()] == chosen
        assert split.chosen_patches(index) == chosen
        # The others of their photos are unlabelled, as are all that are not listed.
        assert len(split.labeled) + len(split.unlabeled) + 3 == len(index)
        assert sources_of(index, split.labeled) & sources_of(index, split.unlabeled)
        masked = masked_patches(index, **lists)
        np.testing.assert_array_equal(masked, np.union1d(split.labeled, split.validation))

    def test_single_patches_with_a_drawn_validation(self, index, write):
        listing = write("\n".join(f"f1/DJI_{photo}_patch_000_000.png" for photo in range(1, 11)))
        split = split_patches(index, count_masks(index), labeled_files=listing)
        # Masks that are not listed are read for no purpose.
        read = np.union1d(split.labeled, split.validation)
        np.testing.assert_array_equal(read, masked_patches(index, listing))
        assert (len(split.labeled), len(split.validation)) == (8, 2)
        kept_out = sources_of(index, split.validation)
        assert not kept_out & (
            sources_of(index, split.labeled) | sources_of(index, split.unlabeled)
        )

    @pytest.mark.parametrize("text", ["f1/DJI_3\nf2/DJI_95\n", None])
    def test_source_images_alone_say_what_is_labelled(self, index, write, text):
        labeled_files = None if text is None else write(text)
        split = split_patches(index, count_masks(index), labeled_files=labeled_files)
        assert split.chosen_patches(index) == []

    def test_a_patch_of_a_validation_image_is_refused(self, index, write):
        lists = {
            "labeled_files": write("f2/DJI_100_patch_000_001", "labeled.txt"),
            "val_files": write("f2/DJI_100", "val.txt"),
        }
        with pytest.raises(ValueError, match=r"f2/DJI_100 is in .*labeled\.txt and in"):
            split_patches(index, count_masks(index), **lists)

    @pytest.mark.parametrize("kind", ["labeled_files", "val_files"])
    def test_wrong_lists_are_refused(self, index, write, tmp_path, kind):
        for function in (masked_patches, lambda i, **k: split_patches(i, count_masks(i), **k)):
            with pytest.raises(ValueError, match=r"list\.txt, line 2: no source image"):
                function(index, **{kind: write("DJI_1\nDJI_999.JPG\n")})
            with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
                function(index, **{kind: tmp_path / "nothing.txt"})

    def test_single_patches_are_no_validation(self, index, write):
        with pytest.raises(ValueError, match="validation holds out whole source images"):
            masked_patches(index, val_files=write("DJI_100_patch_000_001.png"))


def test_masked_patches_without_lists_are_all(index):
    np.testing.assert_array_equal(masked_patches(index), np.flatnonzero(index.has_mask))


def test_a_root_without_masks_is_refused(tmp_path):
    index = make_index(tmp_path, {"f": {"a": "--", "b": "-"}})
    with pytest.raises(FileNotFoundError, match="holds no mask"):
        masked_patches(index)


def test_digest_follows_the_pools_and_not_the_place(tmp_path):
    folders = {"f1": {"a": "m", "b": "m-"}, "f2": {"a": "m", "c": "--"}}
    here, there = (make_index(tmp_path / name, folders) for name in ("here", "there"))
    renamed = make_index(tmp_path, {"f1": {"a": "m", "x": "m-"}, "f2": {"a": "m", "c": "--"}})
    moved = make_index(tmp_path, {"f1": folders["f1"], "f3": folders["f2"]})
    split = Split(np.array([0]), np.array([1]), np.array([4, 5]))
    assert split.digest(here) == split.digest(there)
    others = [
        Split(np.array([1]), np.array([0]), np.array([4, 5])).digest(here),
        Split(np.array([0]), np.array([1]), np.array([5])).digest(here),
        Split(np.array([3]), np.array([1]), np.array([4, 5])).digest(here),
        split.digest(renamed),
        split.digest(moved),
    ]
    assert len({split.digest(here), *others}) == 6


def test_description_counts_patches_and_photos(index):
    split = split_patches(index, count_masks(index))
    lines = split.describe(index).splitlines()
    assert [line.split()[0] for line in lines] == ["labelled", "validation", "unlabelled"]
    for line, pool in zip(lines, pools_of(split), strict=True):
        assert f" {len(pool)} patches of {len(sources_of(index, pool))} source" in line
