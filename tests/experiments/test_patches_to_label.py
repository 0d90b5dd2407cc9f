"""The patches to label next: whose they are, what is copied, what they are good for."""

import numpy as np
import pytest

from experiments.console import run_script
from experiments.patches_to_label import main
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import split_patches


@pytest.fixture
def root(tmp_path, add_patch):
    """Two folders: four photos with masks, four without, of four patches of 16 x 16."""
    mask = np.ones((16, 16))
    for photo in range(4):
        for patch in range(4):
            add_patch(tmp_path / "data" / "a", f"A_{photo}_patch_000_{patch:03d}", mask)
            add_patch(tmp_path / "data" / "b", f"B_{photo}_patch_000_{patch:03d}")
    return tmp_path / "data"


def choose(root, output, *flags):
    main(["--data-root", str(root), "--output", str(output), *flags])
    [listing] = output.glob("*.txt")
    assert listing.name == ("labeled.txt" if "--simulate" in flags else "patches.txt")
    return listing.read_text(encoding="utf-8").split()


def photos(names):
    return sorted({name.partition("_patch")[0] for name in names})


def test_images_are_copied_in_the_layout_of_the_data(root, tmp_path, capsys):
    output = tmp_path / "deep" / "to_label"
    names = choose(root, output, "--count", "6")
    assert len(names) == 6 and photos(names) == [f"b/B_{photo}" for photo in range(4)]
    copied = scan_patches(output)
    assert [copied.patch_name(patch) for patch in range(len(copied))] == names
    assert not copied.has_mask.any() and (output / "b" / "masks").is_dir()
    for patch in range(len(copied)):
        image = copied.image_path(patch)
        assert image.read_bytes() == (root / image.relative_to(output)).read_bytes()
    *_, second, all_folders = [
        line.split() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()
    ]
    assert second == ["b", "4", "0", "6", "4"] and all_folders == ["all", "8", "4", "6", "8"]


def test_labelled_and_copied_back_they_are_trained_with(root, tmp_path, add_patch):
    output = tmp_path / "to_label"
    names = choose(root, output, "--count", "4")
    for name in names:
        add_patch(root / "b", name.removeprefix("b/"), np.ones((16, 16)))
    index = scan_patches(root)
    split = split_patches(index, index.has_mask[:, None] * [[1, 1]], val_fraction=0.25)
    assert sorted({*split.sources(index)["labelled"], *split.sources(index)["validation"]}) == [
        *(f"a/A_{photo}" for photo in range(4)),
        *(f"b/B_{photo}" for photo in range(4)),
    ]
    # The next ones are others.
    again = choose(root, tmp_path / "again", "--count", "4")
    assert photos(again) == photos(names) and not {*again} & {*names}


def test_simulated_ones_have_masks_and_are_a_list_to_train_with(root, tmp_path):
    validation = tmp_path / "val.txt"
    validation.write_text("a/A_2\n", encoding="utf-8")
    output = tmp_path / "lists"
    flags = ["--simulate", "--val-files", str(validation)]
    names = choose(root, output, "--count", "5", *flags)
    assert photos(names) == ["a/A_0", "a/A_1", "a/A_3"] and len(names) == 5
    assert [path.name for path in output.iterdir()] == ["labeled.txt"]
    index = scan_patches(root)
    split = split_patches(
        index,
        index.has_mask[:, None] * [[1, 1]],
        labeled_files=output / "labeled.txt",
        val_files=validation,
    )
    assert split.chosen_patches(index) == names


@pytest.fixture
def listing(tmp_path):
    """Four patches of one photo and one of another."""
    path = tmp_path / "listing.txt"
    path.write_text("A_0\nA_1_patch_000_000\n", encoding="utf-8")
    return path


def test_listed_ones_count_as_labelled_and_stay_in_the_list(root, tmp_path, listing):
    flags = ["--count", "2", "--labeled-files", str(listing), "--simulate"]
    names = choose(root, tmp_path / "out", *flags)
    assert names[:5] == [*(f"a/A_0_patch_000_{n:03d}" for n in range(4)), "a/A_1_patch_000_000"]
    assert photos(names[5:]) == ["a/A_2", "a/A_3"] and len(names) == 7


def test_what_has_a_mask_is_never_copied_listed_or_not(root, tmp_path, listing):
    names = choose(root, tmp_path / "out", "--count", "99", "--labeled-files", str(listing))
    assert photos(names) == [f"b/B_{photo}" for photo in range(4)]


def test_patches_without_content_or_that_cannot_be_read_are_passed_over(
    root, tmp_path, save, caplog
):
    def picture(filled):
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:, :filled] = (90, 0, 0)
        return pixels

    for patch, filled in enumerate((0, 7, 8, 16)):
        save(root / "b" / "images" / f"B_1_patch_000_{patch:03d}.png", picture(filled))
    (root / "b" / "images" / "B_2_patch_000_001.png").write_bytes(b"no picture")
    every = {f"b/B_{photo}_patch_000_{patch:03d}" for photo in range(4) for patch in range(4)}
    bad = {"b/B_2_patch_000_001"}
    black = {"b/B_1_patch_000_000", "b/B_1_patch_000_001"}
    assert {*choose(root, tmp_path / "half", "--count", "99")} == every - black - bad
    assert "B_2_patch_000_001.png" in caplog.text and "only 13 patches are left" in caplog.text
    assert {*choose(root, tmp_path / "all", "--count=99", "--min-content=0")} == every - bad
    full = choose(root, tmp_path / "full", "--count=4", "--min-content=1")
    assert photos(full) == [f"b/B_{photo}" for photo in range(4)]
    assert "b/B_1_patch_000_003" in full


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count=0"], "--count 0 is not at least 1"),
        (["--count=1", "--min-content=1.5"], "--min-content 1.5 is not between 0 and 1"),
        (["--count=1", "--min-content=nan"], "--min-content nan is not between 0 and 1"),
        (["--count=1", "--val-files=none.txt"], "none.txt cannot be read"),
        (["--count=1", "--data-root=nowhere"], "nowhere is not a folder"),
        (["--count=1", "--simulate", "--labeled-files=ALL"], "no patch with a mask is left"),
        (["--count=1", "--data-root=ROOT/a"], "no patch without a mask is left to choose"),
    ],
)
def test_what_cannot_be_chosen_is_one_line_and_writes_nothing(root, tmp_path, capsys, flags, words):
    everything = tmp_path / "all.txt"
    everything.write_text("".join(f"A_{photo}\n" for photo in range(4)), encoding="utf-8")
    flags = [flag.replace("ALL", str(everything)).replace("ROOT", str(root)) for flag in flags]
    output = tmp_path / "out"
    assert run_script(main, ["--data-root", str(root), "--output", str(output), *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "words"), [(".", "is there already"), ("data/to_label", "is in --data-root")]
)
def test_folders_that_hold_something_else_are_left_alone(root, tmp_path, capsys, output, words):
    call = ["--data-root", str(root), "--output", str(tmp_path / output), "--count", "1"]
    assert run_script(main, call) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_folders_of_masks_keep_their_names(root, tmp_path, add_patch):
    add_patch(root / "a", "A_9_patch_000_000")
    (root / "a" / "masks").rename(root / "a" / "Masks")
    assert photos(choose(root, tmp_path / "out", "--count", "5"))[0] == "a/A_9"
    assert [path.name for path in sorted((tmp_path / "out" / "a").iterdir())] == ["Masks", "images"]
