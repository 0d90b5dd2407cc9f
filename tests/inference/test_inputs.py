"""Names of what is made of files and folders."""

from pathlib import Path

import pytest

from ignite_salak.inference.inputs import find_pictures


@pytest.fixture
def touch(tmp_path):
    """Returns a function that makes empty files under tmp_path."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_a_folder_keeps_its_structure(touch):
    root = touch("a/images/1.png", "a/masks/1.png", "b/2.JPG", "3.tiff", "notes.txt", ".git/4.png")
    found = find_pictures([root], root / "out")
    assert found == {
        "3": root / "3.tiff",
        "a/images/1": root / "a/images/1.png",
        "b/2": root / "b/2.JPG",
    }


def test_results_inside_the_input_folder_are_no_inputs(touch):
    root = touch("1.png", "maps/1_classes.png")
    assert list(find_pictures([root], root / "maps")) == ["1"]


def test_several_folders_come_first_in_the_names(touch):
    root = touch("a/1.png", "b/1.png")
    assert list(find_pictures([root / "a", root / "b"], root / "out")) == ["a/1", "b/1"]


def test_files_are_named_by_their_stems_and_taken_once(touch):
    root = touch("a/DJI.1.png", "b/2.png")
    files = [root / "a/DJI.1.png", root / "b/2.png", root / "a/DJI.1.png"]
    assert list(find_pictures(files, root / "out")) == ["DJI.1", "2"]


def test_a_picture_given_twice_is_taken_once(touch):
    root = touch("a/1.png", "a/2.png")
    assert list(find_pictures([root / "a", root / "a" / "2.png"], root / "out")) == ["1", "2"]


@pytest.mark.parametrize(
    "names", [("a/1.png", "b/1.png"), ("a/1.png", "a/1.jpg"), ("a/x.png", "a/X.jpg")]
)
def test_two_pictures_of_one_name_are_refused(touch, names):
    root = touch(*names)
    with pytest.raises(ValueError, match=r"would both be written as [1X].*--output"):
        find_pictures([root / name for name in names], root / "out")


def test_what_is_missing_or_empty_is_named(touch):
    with pytest.raises(ValueError, match="INPUT is missing"):
        find_pictures([], Path("out"))
    root = touch("empty/masks/1.png")
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        find_pictures([root / "nowhere"], root / "out")
    with pytest.raises(FileNotFoundError, match=r"empty holds no picture \(.png"):
        find_pictures([root / "empty"], root / "out")
