"""What is found under a data root, and when the cache answers."""

import dataclasses
import os

import numpy as np
import pytest

from ignite_salak.data import patches
from ignite_salak.data.patches import scan_patches


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def listing(index):
    """{source: [(image, mask)]}, paths relative to the root."""
    found = {}
    for patch in range(len(index)):
        image = index.image_path(patch).relative_to(index.root).as_posix()
        mask = (
            index.mask_path(patch).relative_to(index.root).as_posix() if index.masks[patch] else ""
        )
        found.setdefault(index.source_name(int(index.source_ids[patch])), []).append((image, mask))
    return found


def test_real_layout(plantation):
    index = scan_patches(plantation.root)
    assert index.folders == ("salak-1-1", "salak-1-2", "salak-1-3", "salak-1-4")
    assert len(index) == 8 * 16 and len(index.sources) == 8
    assert index.has_mask.tolist() == [True] * 64 + [False] * 64
    assert all(index.image_path(patch).is_file() for patch in range(len(index)))
    assert all(index.mask_path(patch).is_file() for patch in range(64))


def test_names_make_patches_sources_and_pairs(tmp_path):
    touch(
        tmp_path,
        "f/images/DJI_0462_patch_013_000.png",
        "f/images/DJI_0462_PATCH_013_001.png",
        "f/images/DJI_0463_patch_000_000.JPG",
        "f/images/single.tif",
        "f/images/x_patch_0_0_patch_001_002.png",
        "f/images/notes.txt",
        "f/images/Thumbs.db",
        "f/images/._DJI_0462_patch_013_000.png",
        "f/masks/DJI_0462_patch_013_000.png",
        "f/masks/DJI_0463_patch_000_000_mask.png",
        "f/masks/single_mask.PNG",
    )
    index = scan_patches(tmp_path)
    assert listing(index) == {
        "f/DJI_0462": [
            ("f/images/DJI_0462_PATCH_013_001.png", ""),
            ("f/images/DJI_0462_patch_013_000.png", "f/masks/DJI_0462_patch_013_000.png"),
        ],
        "f/DJI_0463": [
            ("f/images/DJI_0463_patch_000_000.JPG", "f/masks/DJI_0463_patch_000_000_mask.png")
        ],
        "f/single": [("f/images/single.tif", "f/masks/single_mask.PNG")],
        "f/x_patch_0_0": [("f/images/x_patch_0_0_patch_001_002.png", "")],
    }
    assert index.orphan_masks == 0


@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "MASKS"), ("IMAGES", "Masks")])
@pytest.mark.parametrize("folder", ["", "a", "2024/flight 1/ö"])
def test_layout_variants(tmp_path, names, folder):
    home = tmp_path / folder if folder else tmp_path
    touch(home, f"{names[0]}/p.png", f"{names[0]}/q.png", f"{names[1]}/q.png")
    index = scan_patches(tmp_path)
    assert index.folders == (folder,)
    lead = f"{folder}/" if folder else ""
    assert listing(index) == {
        f"{lead}p": [(f"{lead}{names[0]}/p.png", "")],
        f"{lead}q": [(f"{lead}{names[0]}/q.png", f"{lead}{names[1]}/q.png")],
    }


def test_folders_at_several_depths(tmp_path):
    touch(tmp_path, "images/a.png", "b/images/a.png", "b/c/images/a.png", ".trash/images/a.png")
    index = scan_patches(tmp_path)
    assert index.folders == ("", "b", "b/c")
    assert [index.source_name(source) for source in range(3)] == ["a", "b/a", "b/c/a"]


def test_same_name_in_two_folders_is_two_sources(tmp_path):
    for folder in ("f1", "f2"):
        touch(tmp_path / folder, "images/DJI_1_patch_000_000.png", "images/DJI_1_patch_000_001.png")
    index = scan_patches(tmp_path)
    assert index.source_ids.tolist() == [0, 0, 1, 1]


def test_orphan_masks_are_counted(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png", "masks/a_mask.png", "masks/b.png", "masks/c.txt")
    assert scan_patches(tmp_path).orphan_masks == 2


def test_masks_of_another_folder_do_not_count(tmp_path):
    touch(tmp_path, "f1/images/a.png", "f2/images/b.png", "f2/masks/a.png", "f2/masks/b.png")
    index = scan_patches(tmp_path)
    assert index.has_mask.tolist() == [False, True] and index.orphan_masks == 1


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_files_of_one_stem_are_refused(tmp_path, kind):
    touch(tmp_path, "f/images/a.png", f"f/{kind}/a.png", f"f/{kind}/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png have the same stem") as caught:
        scan_patches(tmp_path)
    assert str(tmp_path / "f" / kind) in str(caught.value)


def test_two_image_folders_are_refused(tmp_path):
    touch(tmp_path, "images/a.png", "Images/b.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("the file system does not tell upper from lower case")
    with pytest.raises(ValueError, match="holds Images and images"):
        scan_patches(tmp_path)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        scan_patches(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder named 'images'"):
        scan_patches(tmp_path)
    touch(tmp_path, "f/images/notes.txt", "f/masks/a.png")
    with pytest.raises(FileNotFoundError, match=r"no image \(\.png"):
        scan_patches(tmp_path)


def test_mask_path_of_an_unlabelled_patch_is_refused(tmp_path):
    touch(tmp_path, "images/a.png")
    with pytest.raises(ValueError, match=r"a\.png has no mask"):
        scan_patches(tmp_path).mask_path(0)


class TestCache:
    @pytest.fixture
    def root(self, tmp_path, settle):
        root = tmp_path / "data"
        touch(root, "a/images/DJI_1_patch_0_0.png", "a/masks/DJI_1_patch_0_0.png", "a/masks/z.png")
        touch(root, "n/é/images/DJI_1_patch_0_0.png", "n/é/images/DJI_2_patch_0_0.png")
        settle(root)
        return root

    @pytest.fixture
    def scans(self, monkeypatch):
        """Names of the folders that were really scanned."""
        scanned = []
        scan = patches._scan
        monkeypatch.setattr(
            patches, "_scan", lambda root, folders: scanned.append(root) or scan(root, folders)
        )
        return scanned

    def test_second_scan_comes_from_the_cache(self, root, scans, private_cache):
        first = scan_patches(root)
        again = scan_patches(root)
        assert len(scans) == 1 and len(list(private_cache.iterdir())) == 1
        for field in dataclasses.fields(first):
            old, new = getattr(first, field.name), getattr(again, field.name)
            assert type(old) is type(new)
            if isinstance(old, np.ndarray):
                assert old.dtype == new.dtype
                np.testing.assert_array_equal(old, new)
            else:
                assert old == new
        assert listing(first) == listing(again) and again.orphan_masks == 1

    def test_no_cache_on_request(self, root, scans, private_cache):
        scan_patches(root, cache=False)
        scan_patches(root, cache=False)
        assert len(scans) == 2 and not list(private_cache.iterdir())

    @pytest.mark.parametrize(
        "name", ["a/images/new.png", "a/masks/new.png", "n/é/masks/DJI_2_patch_0_0.png",
                 "n/new/images/a.png", "images/a.png"]
    )  # fmt: skip
    def test_added_files_are_seen(self, root, scans, name):
        before = scan_patches(root)
        touch(root, name)
        after = scan_patches(root)
        assert len(scans) == 2
        assert listing(after) != listing(before) or after.orphan_masks != before.orphan_masks

    @pytest.mark.parametrize(
        "name", ["a/masks/DJI_1_patch_0_0.png", "n/é/images/DJI_2_patch_0_0.png"]
    )
    def test_deleted_files_are_seen(self, root, scans, name):
        before = scan_patches(root)
        (root / name).unlink()
        after = scan_patches(root)
        assert len(scans) == 2 and listing(after) != listing(before)

    def test_deleted_and_renamed_folders_are_seen(self, root, settle):
        scan_patches(root)
        (root / "n").rename(root / "m")
        settle(root)
        assert scan_patches(root).folders == ("a", "m/é")

    def test_folder_changed_just_now_is_not_cached(self, root, scans, private_cache):
        os.utime(root / "a" / "images")
        scan_patches(root)
        scan_patches(root)
        assert len(scans) == 2 and not list(private_cache.iterdir())

    def test_damaged_cache_is_scanned_again(self, root, scans, private_cache):
        expected = listing(scan_patches(root))
        (file,) = private_cache.iterdir()
        whole = file.read_bytes()
        compressed = whole.replace(b"PK\x03\x04", b"PK\x03\x05")
        for number, content in enumerate((b"", b"text", whole[:-30], whole[:500], compressed)):
            file.write_bytes(content)
            assert listing(scan_patches(root)) == expected
            assert len(scans) == number + 2
            assert file.read_bytes() == whole or len(file.read_bytes()) == len(whole)
        assert len(list(private_cache.iterdir())) == 1

    def test_unknown_compression_in_the_cache_is_scanned_again(self, root, scans, private_cache):
        scan_patches(root)
        (file,) = private_cache.iterdir()
        content = bytearray(file.read_bytes())
        central = content.index(b"PK\x01\x02")
        content[central + 10] = 99
        file.write_bytes(content)
        scan_patches(root)
        assert len(scans) == 2

    def test_roots_do_not_share_a_cache(self, root, tmp_path, settle):
        other = tmp_path / "other"
        touch(other, "a/images/x.png")
        settle(other)
        scan_patches(root)
        assert set(listing(scan_patches(other))) == {"a/x"}
        assert "a/DJI_1" in listing(scan_patches(root))

    def test_unwritable_cache_is_only_slower(self, root, scans, tmp_path, monkeypatch):
        touch(tmp_path, "file")
        monkeypatch.setenv("IGNITE_SALAK_CACHE", str(tmp_path / "file"))
        assert listing(scan_patches(root)) == listing(scan_patches(root))
        assert len(scans) == 2

    def test_failed_write_leaves_no_leftover(self, root, private_cache, monkeypatch):
        def fail(file, **arrays):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(np, "savez", fail)
        assert len(scan_patches(root)) == 3
        assert not list(private_cache.iterdir())

    def test_relative_root(self, root, monkeypatch, scans):
        monkeypatch.chdir(root.parent)
        index = scan_patches(patches.Path("data"))
        assert index.image_path(0).is_file()
        assert listing(index) == listing(scan_patches(root))
