"""Items and batches as the training sees them: sizes, padding, bad files."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ignite_salak.data.datasets import PatchDataset, collate
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.patches import scan_patches


@pytest.fixture
def root(tmp_path, save):
    """Patches 0 and 1 of 32 x 32 pixels, patch 2 of 24 x 16 (width x height), all with masks."""
    root = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(32, 32), (32, 32), (16, 24)]):
        name = f"p_patch_000_{number:03d}.png"
        save(root / "images" / name, rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
        save(root / "masks" / name, rng.integers(0, 3, shape).astype(np.uint8))
    return root


@pytest.fixture
def dataset(root, classes):
    def make(patches=(0, 1, 2), masks=True, **options):
        index = scan_patches(root, cache=False)
        return PatchDataset(
            index, np.array(patches), MaskReader(classes) if masks else None, **options
        )

    return make


def stored(root, kind, number):
    return np.asarray(Image.open(root / kind / f"p_patch_000_{number:03d}.png"))


def test_items_are_the_files(root, dataset):
    patches = dataset(patches=(2, 0))
    assert len(patches) == 2
    for position, number in enumerate((2, 0)):
        item = patches[position]
        assert set(item) == {"image", "mask"}
        assert item["image"].dtype == item["mask"].dtype == torch.uint8
        assert item["image"].is_contiguous()
        image = item["image"].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(image, stored(root, "images", number))
        np.testing.assert_array_equal(item["mask"].numpy(), stored(root, "masks", number))
    assert patches[0]["image"].shape == (3, 16, 24)


def test_without_a_reader_no_mask_is_touched(root, dataset):
    for path in (root / "masks").iterdir():
        path.write_bytes(b"")
    assert set(dataset(masks=False)[0]) == {"image"}


def test_items_may_be_changed_in_place(dataset):
    patches = dataset()
    first = patches[0]["image"]
    first.zero_()
    assert patches[0]["image"].any()


def test_input_size_resizes_the_longer_side(dataset):
    patches = dataset(input_size=48)
    assert [tuple(patches[i]["image"].shape) for i in (0, 2)] == [(3, 48, 48), (3, 32, 48)]
    assert [tuple(patches[i]["mask"].shape) for i in (0, 2)] == [(48, 48), (32, 48)]


def test_halving_antialiases_images_and_keeps_classes_in_masks(root, dataset, save):
    checkerboard = np.indices((32, 32)).sum(axis=0) % 2
    save(
        root / "images" / "p_patch_000_000.png", np.stack([checkerboard * 255] * 3, -1).astype("u1")
    )
    corner = np.full((32, 32), 2, np.uint8)
    corner[:16, :16] = 0
    corner[:, 24:] = 255
    save(root / "masks" / "p_patch_000_000.png", corner)
    item = dataset(input_size=16)[0]
    inside = item["image"][:, 2:-2, 2:-2].float()
    assert inside.min() > 110 and inside.max() < 145  # grey, where nearest would be black or white
    np.testing.assert_array_equal(item["mask"].numpy(), corner[::2, ::2])


def test_very_narrow_patches_keep_a_pixel(root, dataset, save):
    save(root / "images" / "p_patch_000_000.png", np.zeros((200, 1, 3), np.uint8))
    assert dataset(masks=False, input_size=16)[0]["image"].shape == (3, 16, 1)


class TestBadFiles:
    def test_reason_takes_the_place_of_the_item(self, root, dataset):
        path = root / "images" / "p_patch_000_000.png"
        path.write_bytes(b"")
        patches = dataset()
        assert patches[0] == {"bad_file": f"{path}: the file is empty"}
        assert "bad_file" not in patches[1]

    def test_skip_gives_the_next_usable_patch_and_the_reason(self, root, dataset):
        for number in (1, 2):
            (root / "masks" / f"p_patch_000_{number:03d}.png").write_bytes(b"")
        patches = dataset(skip_bad_files=True)
        item = patches[1]
        assert item["bad_file"].startswith(str(root / "masks" / "p_patch_000_001.png"))
        assert torch.equal(item["image"], patches[0]["image"])
        assert torch.equal(item["mask"], patches[0]["mask"])

    def test_skip_with_nothing_left(self, root, dataset):
        for path in (root / "images").iterdir():
            path.write_bytes(b"")
        item = dataset(skip_bad_files=True)[2]
        assert set(item) == {"bad_file"}
        assert "002.png" in item["bad_file"] and "no other patch" in item["bad_file"]

    def test_file_deleted_since_the_scan(self, root, dataset):
        patches = dataset()
        (root / "images" / "p_patch_000_001.png").unlink()
        assert "does not exist" in patches[1]["bad_file"]

    def test_mask_of_another_size(self, root, dataset, save):
        path = save(root / "masks" / "p_patch_000_000.png", np.zeros((32, 16), np.uint8))
        assert dataset()[0]["bad_file"].startswith(f"{path}: its size differs")


def test_pickling_keeps_the_items(dataset):
    patches = dataset(input_size=20, skip_bad_files=True)
    copy = pickle.loads(pickle.dumps(patches))
    for position in range(3):
        for key in ("image", "mask"):
            assert torch.equal(copy[position][key], patches[position][key])


class TestCache:
    class Recording:
        """A cache that holds nothing and notes what it is asked."""

        def __init__(self):
            self.asked = []

        def check(self, *arguments):
            self.asked.append(arguments)

        def item(self, patch, masked, decode):
            self.asked.append((patch, masked))
            return decode()

    def test_it_is_asked_by_the_patch_s_number(self, dataset):
        plain = dataset(patches=(2, 0), input_size=20)
        cache = self.Recording()
        patches = dataset(patches=(2, 0), input_size=20, cache=cache)
        item = patches[0]
        assert cache.asked == [(patches.index, patches.mask_reader, 20), (2, True)]
        assert all(torch.equal(item[key], plain[0][key]) for key in ("image", "mask"))

    def test_it_is_told_that_no_mask_is_wanted(self, dataset):
        cache = self.Recording()
        assert set(dataset(masks=False, cache=cache)[1]) == {"image"}
        assert cache.asked[1:] == [(1, False)]

    def test_what_takes_the_place_of_a_bad_patch_comes_from_it_too(self, root, dataset):
        (root / "images" / "p_patch_000_001.png").write_bytes(b"")
        cache = self.Recording()
        assert "bad_file" in dataset(skip_bad_files=True, cache=cache)[1]
        assert cache.asked[1:] == [(1, True), (2, True)]


class TestCollate:
    def test_equal_sizes_are_stacked(self, dataset):
        patches = dataset()
        batch = collate([patches[0], patches[1]])
        assert set(batch) == {"image", "mask", "bad_files"} and batch["bad_files"] == []
        assert torch.equal(batch["image"], torch.stack([patches[0]["image"], patches[1]["image"]]))
        assert torch.equal(batch["mask"], torch.stack([patches[0]["mask"], patches[1]["mask"]]))

    def test_smaller_patches_are_padded_below_and_to_the_right(self):
        tall = {
            "image": torch.full((3, 5, 2), 7, dtype=torch.uint8),
            "mask": torch.ones(5, 2, dtype=torch.uint8),
        }
        broad = {
            "image": torch.full((3, 2, 4), 9, dtype=torch.uint8),
            "mask": torch.zeros(2, 4, dtype=torch.uint8),
        }
        batch = collate([tall, broad])
        image, mask = batch["image"], batch["mask"]
        assert image.shape == (2, 3, 5, 4) and mask.shape == (2, 5, 4)
        assert image.dtype == mask.dtype == torch.uint8
        assert (image[0, :, :, :2] == 7).all() and (image[0, :, :, 2:] == 0).all()
        assert (image[1, :, :2] == 9).all() and (image[1, :, 2:] == 0).all()
        assert (mask[0, :, :2] == 1).all() and (mask[0, :, 2:] == 255).all()
        assert (mask[1, :2] == 0).all() and (mask[1, 2:] == 255).all()

    def test_without_masks(self, dataset):
        patches = dataset(masks=False)
        batch = collate([patches[0], patches[2]])
        assert set(batch) == {"image", "bad_files"} and batch["image"].shape == (2, 3, 32, 32)

    def test_bad_files_are_listed(self, dataset):
        item = dataset()[0]
        skipped = collate([item, {**item, "bad_file": "x: reason"}])
        assert skipped["bad_files"] == ["x: reason"] and len(skipped["image"]) == 2
        assert collate([{"bad_file": "x: reason"}, item]) == {"bad_files": ["x: reason"]}
        assert collate([item, {"bad_file": "x: reason"}]) == {"bad_files": ["x: reason"]}
