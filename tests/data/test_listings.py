"""Lists as people write them."""

import numpy as np
import pytest

from ignite_salak.data.listings import check_apart, listed_patches, write_list
from tests.data.indexes import make_index


def names(index, listing, single_patches=True):
    patches = listed_patches(index, listing, single_patches=single_patches)
    assert patches.tolist() == sorted(set(patches.tolist()))
    assert index.has_mask[patches].all()
    return [index.patch_name(patch) for patch in patches.tolist()]


@pytest.mark.parametrize(
    "text",
    [
        "f2/DJI_95\nf2/DJI_96\n",
        "DJI_95.JPG\nDJI_96.JPG",
        "dji_95.jpg\r\nDJI_96.DNG\r\n",
        "\ufefff2\\DJI_95.tif\r\n\r\n# flown in May\r\nF2\\dji_96.JPEG\r\n",
        "  DJI_95.png  \n\tDJI_96\nDJI_96.JPG\n",
    ],
)
@pytest.mark.parametrize("single_patches", [True, False])
def test_spellings(index, write, text, single_patches):
    expected = [f"f2/DJI_{photo}_patch_000_00{patch}" for photo in (95, 96) for patch in range(3)]
    assert names(index, write(text), single_patches) == expected


@pytest.mark.parametrize(
    "text",
    [
        "f2/DJI_95_patch_000_002\nf1/DJI_3\n",
        "DJI_3.JPG\r\nF2\\dji_95_PATCH_000_002.PNG\r\n# spread\r\nDJI_95_patch_000_002.tif\r\n",
    ],
)
def test_single_patches_beside_source_images(index, write, text):
    # Of DJI_3 one patch of three has a mask.
    assert names(index, write(text)) == ["f1/DJI_3_patch_000_000", "f2/DJI_95_patch_000_002"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DJI_1\n\nDJI_999.JPG\n", r"line 3: no source image or patch named 'DJI_999\.JPG'"),
        ("f3/DJI_1.JPG\n", r"line 1: source image 'f3/DJI_1\.JPG' has no mask"),
        ("f9/DJI_1.JPG\n", "line 1: no source image"),
        ("DJI_1_patch_000_009.png\n", "line 1: no source image or patch"),
        ("# none\n\n", "names none"),
        ("", "names none"),
    ],
)
@pytest.mark.parametrize("single_patches", [True, False])
def test_wrong_entries_are_named(index, write, text, words, single_patches):
    with pytest.raises(ValueError, match=words) as caught:
        names(index, write(text), single_patches)
    assert "list.txt" in str(caught.value)


def test_a_patch_without_a_mask_is_refused(index, write):
    words = r"line 2: patch 'f1/DJI_3_patch_000_001\.png' has no mask"
    with pytest.raises(ValueError, match=words):
        names(index, write("f1/DJI_1\nf1/DJI_3_patch_000_001.png"))


def test_what_has_no_mask_is_found_where_none_is_needed(index, write):
    listing = write("f3/DJI_1\nf1/DJI_3\nDJI_95\n")
    patches = listed_patches(index, listing, single_patches=False, masks_needed=False)
    sources = [index.source_name(photo) for photo in index.source_ids[patches]]
    assert {*sources} == {"f3/DJI_1", "f1/DJI_3", "f2/DJI_95"} and len(sources) == 8
    # A name of several photos means all of them: once they have masks, it will.
    patches = listed_patches(index, write("DJI_1"), single_patches=False, masks_needed=False)
    sources = {index.source_name(photo) for photo in index.source_ids[patches]}
    assert sources == {"f1/DJI_1", "f3/DJI_1"}


def test_a_single_patch_is_refused_where_source_images_are_wanted(index, write):
    words = "is one patch of f2/DJI_100: validation holds out whole source images"
    with pytest.raises(ValueError, match=words):
        names(index, write("DJI_100_patch_000_001.png"), single_patches=False)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings_are_refused_by_name(index, write, encoding):
    # PowerShell's ">" writes UTF-16.
    with pytest.raises(ValueError, match=r"list\.txt is not UTF-8"):
        names(index, write("# Flüge\nDJI_1.JPG\n", encoding=encoding))


def test_what_is_written_is_read(index, tmp_path):
    masked = [photo for photo in range(len(index.sources)) if index.source_name(photo)[:2] == "f2"]
    wanted = [index.source_name(photo) for photo in masked]
    write_list(tmp_path / "list.txt", wanted)
    assert (tmp_path / "list.txt").read_bytes().decode("utf-8").split("\n") == [*wanted, ""]
    found = names(index, tmp_path / "list.txt", single_patches=False)
    assert {name.partition("_patch")[0] for name in found} == {*wanted}


@pytest.mark.parametrize("folder", ["#2", "Flüge ä", "a.b"])
@pytest.mark.parametrize("photo", ["DJI_1", "DJI_1.JPG", "#1"])
def test_odd_names_are_written_and_read(tmp_path, folder, photo):
    index = make_index(tmp_path, {folder: {photo: "mm"}, "other": {"DJI_2": "m"}})
    for name in (index.source_name(0), f"{photo}_patch_000_001"):
        write_list(tmp_path / "list.txt", [name])
        found = listed_patches(index, tmp_path / "list.txt", single_patches=True)
        assert found.tolist() == ([1] if "patch" in name else [0, 1])


def test_labelled_and_validation_patches_of_one_photo_are_refused(index):
    one, other = (np.flatnonzero(index.source_ids == photo)[:1] for photo in (0, 1))
    check_apart(index, one, other, ("a.txt", "b.txt"))
    check_apart(index, one, other[:0], ("a.txt", None))
    sibling = np.flatnonzero(index.source_ids == 0)[1:2]
    words = rf"source image {index.source_name(0)} is in a\.txt and in b\.txt \(1 in both\)"
    with pytest.raises(ValueError, match=words):
        check_apart(index, one, np.concatenate([other, sibling]), ("a.txt", "b.txt"))


def test_a_missing_list_is_named(index, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        names(index, tmp_path / "nothing.txt")
