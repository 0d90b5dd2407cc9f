"""A folder of the real layout, a twelfth of the real size: found fast, kept small, read again."""

import errno
import os
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ignite_salak.data import patches
from ignite_salak.data.decoding import MaskReader, read_image
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import split_patches
from tests.large_folder import FOLDERS, MASKED_FOLDERS, MASKS, PATCHES, make_large_folder

SIZE, LABELED = 30_000, 1_040
PHOTO = 14 * 21  # patches


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two images and their masks of 8 x 8 pixels."""
    folder = tmp_path_factory.mktemp("pairs")
    found = []
    for value in (0, 1):
        image, mask = folder / f"image_{value}.png", folder / f"mask_{value}.png"
        Image.new("RGB", (8, 8), (90, 120 + value, 60)).save(image)
        Image.new("L", (8, 8), value).save(mask)
        found.append((image, mask))
    return found


class TestMakeLargeFolder:
    def test_names_and_numbers(self, tmp_path, pairs):
        root = make_large_folder(tmp_path / "data", pairs, patches=1_800, masks=7)
        assert sorted(path.name for path in root.iterdir()) == list(FOLDERS)
        for folder in FOLDERS:
            names = sorted(path.name for path in (root / folder / "images").iterdir())
            assert len(names) == 300  # a photo of 294 and the start of the next
            assert names[0] == "DJI_0001_patch_000_000.png"
            assert names[293:295] == ["DJI_0001_patch_013_020.png", "DJI_0002_patch_000_000.png"]
        masks = {path.relative_to(root).as_posix() for path in root.glob("*/masks/*")}
        name = "DJI_0001_patch_000_00"
        assert masks == {
            *(f"salak-1-1/masks/{name}{column}.png" for column in (0, 1, 2)),
            *(f"salak-1-{i}/masks/{name}{column}.png" for i in (2, 3) for column in (0, 1)),
        }

    def test_images_and_masks_fit(self, tmp_path, pairs, classes):
        root = make_large_folder(tmp_path / "data", pairs, patches=60, masks=30)
        index = scan_patches(root, cache=False)
        for patch in np.flatnonzero(index.has_mask):
            green = read_image(index.image_path(patch))[0, 0, 1]
            mask, _ = MaskReader(classes).read(index.mask_path(patch))
            assert green - 120 == mask[0, 0]

    @pytest.mark.parametrize("most", [0, 3])
    def test_file_system_with_few_links_or_none(self, tmp_path, pairs, monkeypatch, most):
        made = []
        link = os.link

        def limited(source, target):
            if os.stat(source).st_nlink > most:  # noqa: PTH116
                raise OSError(errno.EMLINK, "too many links")
            link(source, target)
            made.append(target)

        monkeypatch.setattr(os, "link", limited)
        root = make_large_folder(tmp_path / "data", pairs, patches=60, masks=0)
        files = list(root.glob("*/images/*"))
        assert len(files) == 60
        assert {path.read_bytes() for path in files} == {image.read_bytes() for image, _ in pairs}
        assert bool(made) == bool(most) and len({path.stat().st_ino for path in files}) > 6

    def test_too_many_masks_are_refused(self, tmp_path, pairs):
        with pytest.raises(ValueError, match="31 masks do not fit into half of 60 patches"):
            make_large_folder(tmp_path / "data", pairs, patches=60, masks=31)


@pytest.fixture(scope="module")
def root(tmp_path_factory, pairs):
    """A twelfth of the real folder, dated back so that it is cached; read only."""
    root = tmp_path_factory.mktemp("large") / "data"
    make_large_folder(root, pairs, patches=SIZE, masks=LABELED)
    for folder in (root, *root.glob("*"), *root.glob("*/*")):
        os.utime(folder, (1_000_000_000, 1_000_000_000))
    return root


@pytest.mark.slow
class TestLargeFolder:
    def test_everything_is_found(self, root):
        index = scan_patches(root, cache=False)
        assert index.folders == FOLDERS and index.orphan_masks == 0
        assert np.bincount(index.folder_ids).tolist() == [5_000] * 6
        masked = np.bincount(index.folder_ids[index.has_mask], minlength=6)
        assert masked.tolist() == [347, 347, 346, 0, 0, 0]
        assert len(index.sources) == 6 * 18  # 5,000 patches are 17 photos and a part
        assert np.bincount(index.source_ids)[:18].tolist() == [PHOTO] * 17 + [5_000 - 17 * PHOTO]
        assert index.image_path(SIZE - 1).is_file()

    def test_second_scan_reads_no_folder_and_is_several_times_faster(self, root, monkeypatch):
        def seconds(cache):
            started = time.perf_counter()
            index = scan_patches(root, cache=cache)
            assert len(index) == SIZE
            return time.perf_counter() - started

        scanned = min(seconds(cache=False) for _ in range(3))
        expected = scan_patches(root)
        monkeypatch.setattr(patches, "_list_images", None)
        cached = min(seconds(cache=True) for _ in range(3))
        np.testing.assert_array_equal(scan_patches(root).images, expected.images)
        assert scanned > 3 * cached

    @pytest.mark.parametrize("again", [False, True])
    def test_memory_of_the_whole_folder_would_be_small(self, root, again):
        if again:
            scan_patches(root)
        tracemalloc.start()
        index = scan_patches(root)
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(index) == SIZE
        whole = PATCHES / SIZE
        assert kept * whole < 100e6 and peak * whole < 250e6  # the promise is 500 MB

    def test_split_keeps_every_patch_once(self, root):
        index = scan_patches(root)
        counts = np.zeros((SIZE, 2), dtype=np.int64)
        counts[index.has_mask] = 1
        split = split_patches(index, counts, seed=1)
        pools = np.concatenate([split.labeled, split.validation, split.unlabeled])
        validation = np.isin(index.source_ids, index.source_ids[split.validation])
        left_out = validation & ~index.has_mask  # of a validation photo that is masked in part
        assert len(split.labeled) + len(split.validation) == LABELED
        assert sorted([*pools, *np.flatnonzero(left_out)]) == list(range(SIZE))


def test_full_size_is_that_of_the_real_folder():
    assert (PATCHES, MASKS, len(FOLDERS), len(MASKED_FOLDERS)) == (370_647, 12_856, 6, 3)
