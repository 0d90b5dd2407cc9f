"""The patches to label next: whose they are, what is copied, what they are good for."""

import shutil
from pathlib import Path

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
    listing = output / ("labeled.txt" if "--simulate" in flags else "patches.txt")
    return listing.read_text(encoding="utf-8").split()


def photos(names):
    return sorted({name.partition("_patch")[0] for name in names})


@pytest.fixture
def listing(tmp_path):
    """Four patches of one photo and one of another."""
    path = tmp_path / "listing.txt"
    path.write_text("A_0\nA_1_patch_000_000\n", encoding="utf-8")
    return path


def test_images_are_copied_in_the_layout_of_the_data(root, tmp_path, capsys):
    output = tmp_path / "deep" / "to_label"
    names = choose(root, output, "--count", "6")
    assert len(names) == 6 and photos(names) == [f"b/B_{photo}" for photo in range(4)]
    copied = scan_patches(output / "data")
    assert [copied.patch_name(patch) for patch in range(len(copied))] == names
    assert not copied.has_mask.any() and (output / "data" / "b" / "masks").is_dir()
    for patch in range(len(copied)):
        image = copied.image_path(patch)
        original = root / image.relative_to(output / "data")
        assert image.read_bytes() == original.read_bytes()
        assert image.stat().st_mtime == pytest.approx(original.stat().st_mtime, abs=1e-3)
    *_, second, all_folders = [
        line.split() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()
    ]
    assert second == ["b", "4", "0", "6", "4"] and all_folders == ["all", "8", "4", "6", "8"]


@pytest.fixture
def label(root, save):
    """Returns a function that labels what was chosen and copies it back, as the script says."""

    def by_hand(output):
        for image in (output / "data").rglob("images/*"):
            save(image.parents[1] / "masks" / f"{image.stem}.png", np.ones((16, 16), np.uint8))
        shutil.copytree(output / "data", root, dirs_exist_ok=True)

    return by_hand


def split(root, **flags):
    index = scan_patches(root)
    pools = split_patches(index, index.has_mask[:, None] * [[1, 1]], **flags)
    return index, pools, pools.sources(index)


def test_labelled_and_copied_back_they_are_trained_with(root, tmp_path, label):
    before = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    output = tmp_path / "to_label"
    names = choose(root, output, "--count", "4")
    label(output)
    new = {path.relative_to(root) for path in root.rglob("*.png")} - {*before}
    assert new == {Path("b", "masks", f"{name.removeprefix('b/')}.png") for name in names}
    _, _, sources = split(root, val_fraction=0.25)
    assert sorted({*sources["labelled"], *sources["validation"]}) == [
        *(f"a/A_{photo}" for photo in range(4)),
        *(f"b/B_{photo}" for photo in range(4)),
    ]
    assert not list(root.rglob("*.txt"))
    # The next ones are others.
    again = choose(root, tmp_path / "again", "--count", "4")
    assert photos(again) == photos(names) and not {*again} & {*names}


def test_listed_labels_and_new_ones_are_a_list_to_train_with(
    root, tmp_path, label, listing, capsys
):
    validation = tmp_path / "val.txt"
    validation.write_text("a/A_2\nA_3\n", encoding="utf-8")
    flags = ["--labeled-files", str(listing), "--val-files", str(validation)]
    output = tmp_path / "to_label"
    names = choose(root, output, "--count", "4", *flags)
    assert f"--labeled-files {output / 'labeled.txt'}" in capsys.readouterr().out
    label(output)
    index, pools, sources = split(root, labeled_files=output / "labeled.txt", val_files=validation)
    old = [*(f"a/A_0_patch_000_{patch:03d}" for patch in range(4)), "a/A_1_patch_000_000"]
    assert [index.patch_name(patch) for patch in pools.labeled] == [*old, *names]
    assert sources["validation"] == ["a/A_2", "a/A_3"]
    # Without a list all that have masks are trained with, and none is needed.
    choose(root, tmp_path / "again", "--count", "4")
    assert not (tmp_path / "again" / "labeled.txt").exists()


def test_simulated_ones_have_masks_and_are_a_list_to_train_with(root, tmp_path):
    validation = tmp_path / "val.txt"
    validation.write_text("a/A_2\n", encoding="utf-8")
    output = tmp_path / "lists"
    flags = ["--simulate", "--val-files", str(validation)]
    names = choose(root, output, "--count", "5", *flags)
    assert photos(names) == ["a/A_0", "a/A_1", "a/A_3"] and len(names) == 5
    assert [path.name for path in output.iterdir()] == ["labeled.txt"]
    index, pools, _ = split(root, labeled_files=output / "labeled.txt", val_files=validation)
    assert pools.chosen_patches(index) == names


def test_validation_photos_need_no_mask_yet(root, tmp_path, caplog):
    validation = tmp_path / "val.txt"
    validation.write_text("a/A_0\nb/B_1\nB_3\n", encoding="utf-8")
    names = choose(root, tmp_path / "out", "--count", "99", "--val-files", str(validation))
    assert photos(names) == ["b/B_0", "b/B_2"] and len(names) == 8
    assert "2 source images" in caplog.text and "b/B_1: label these whole" in caplog.text


def test_the_seed_draws_other_patches_of_the_same_photos(root, tmp_path):
    drawn = [
        choose(root, tmp_path / f"out_{seed}", "--count=3", f"--seed={seed}") for seed in range(6)
    ]
    assert len({tuple(names) for names in drawn}) > 1
    assert len({tuple(photos(names)) for names in drawn}) == 1
    assert choose(root, tmp_path / "again", "--count=3", "--seed=5") == drawn[5]


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
    assert "B_2_patch_000_001.png" in caplog.text
    assert "13 are all patches without a mask" in caplog.text
    assert "mostly black or unreadable ones (3) not counted" in caplog.text
    caplog.clear()
    assert {*choose(root, tmp_path / "enough", "--count", "13")} == every - black - bad
    assert "--count" not in caplog.text
    assert {*choose(root, tmp_path / "all", "--count=99", "--min-content=0")} == every - bad
    # Whatever is drawn first, only one of B_1 will do.
    for seed in range(6):
        flags = ["--count=4", "--min-content=1", f"--seed={seed}"]
        full = choose(root, tmp_path / f"full_{seed}", *flags)
        assert photos(full) == [f"b/B_{photo}" for photo in range(4)]
        assert "b/B_1_patch_000_003" in full


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--count=0"], "--count 0 is not at least 1"),
        (["--count=1", "--min-content=1.5"], "--min-content 1.5 is not between 0 and 1"),
        (["--count=1", "--min-content=nan"], "--min-content nan is not between 0 and 1"),
        (["--count=1", "--val-files=none.txt"], "none.txt cannot be read"),
        (["--count=1", "--data-root=nowhere"], "--data-root nowhere is not a folder"),
        (["--count=1", "--simulate", "--labeled-files=ALL"], "no patch with a mask under"),
        (["--count=1", "--data-root=ROOT/a"], "nothing is left to choose: no patch without a mask"),
        (
            ["--count=1", "--labeled-files=ALL", "--val-files=ONE"],
            "is in ALL and in ONE (1 in both)",
        ),
        (["--count=1", "--simulate", "--val-files=BARE"], "source image 'b/B_1' has no mask"),
    ],
)
def test_what_cannot_be_chosen_is_one_line_and_writes_nothing(root, tmp_path, capsys, flags, words):
    lists = {"ALL": "A_0\nA_1\nA_2\nA_3\n", "ONE": "A_3\n", "BARE": "b/B_1\n"}
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        flags = [flag.replace(f"={name}", f"={tmp_path / name}") for flag in flags]
        words = words.replace(name, str(tmp_path / name))
    flags = [flag.replace("ROOT", str(root)) for flag in flags]
    output = tmp_path / "out"
    assert run_script(main, ["--data-root", str(root), "--output", str(output), *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (".", "is there already"),
        ("data/to_label", "is in --data-root"),
        ("data/a/images/A_0_patch_000_000.png/out", "A_0_patch_000_000.png is a file"),
    ],
)
def test_folders_that_hold_something_else_are_left_alone(root, tmp_path, capsys, output, words):
    call = ["--data-root", str(root), "--output", str(tmp_path / output), "--count", "1"]
    assert run_script(main, call) == 2
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_folders_keep_their_names(root, tmp_path, add_patch):
    add_patch(root / "a", "A_9_patch_000_000")
    (root / "a" / "masks").rename(root / "a" / "Masks")
    (root / "a" / "images").rename(root / "a" / "IMAGES")
    assert photos(choose(root, tmp_path / "out", "--count", "5"))[0] == "a/A_9"
    copied = tmp_path / "out" / "data" / "a"
    assert [path.name for path in sorted(copied.iterdir())] == ["IMAGES", "Masks"]


def test_images_directly_under_the_data_root(tmp_path, add_patch, capsys):
    root = tmp_path / "data"
    add_patch(root, "A_0_patch_000_000", np.ones((16, 16)))
    add_patch(root, "A_1_patch_000_000")
    assert choose(root, tmp_path / "out", "--count", "1") == ["A_1_patch_000_000"]
    assert (tmp_path / "out" / "data" / "images" / "A_1_patch_000_000.png").is_file()
    assert (tmp_path / "out" / "data" / "masks").is_dir()
    assert capsys.readouterr().out.splitlines()[1].split() == [".", "2", "1", "1", "2"]


def test_far_from_photos_with_labels_and_from_validation_photos(tmp_path, add_patch, capsys):
    root = tmp_path / "data"
    for photo in range(10):
        mask = np.ones((16, 16)) if photo in (0, 9) else None
        add_patch(root / "f", f"A_{photo}_patch_000_000", mask)
    validation = tmp_path / "val.txt"
    validation.write_text("A_0\nA_4\n", encoding="utf-8")
    flags = ["--val-files", str(validation)]
    # Of 1 to 3 and 5 to 8, between 0 and 4, 4 and 9.
    assert photos(choose(root, tmp_path / "one", "--count", "1", *flags)) == ["f/A_7"]
    assert photos(choose(root, tmp_path / "two", "--count", "2", *flags)) == ["f/A_2", "f/A_7"]
    assert capsys.readouterr().out.splitlines()[1].split() == ["f", "10", "1", "1", "2"]


def test_the_same_name_in_another_flight_is_a_validation_photo_too(root, tmp_path, add_patch):
    # Once it has a mask, the list means it.
    add_patch(root / "b", "A_2_patch_000_000")
    validation = tmp_path / "val.txt"
    validation.write_text("A_2\n", encoding="utf-8")
    names = choose(root, tmp_path / "out", "--count", "99", "--val-files", str(validation))
    assert photos(names) == [f"b/B_{photo}" for photo in range(4)]


def test_masks_under_other_names_are_told_of(root, tmp_path, save, caplog):
    save(root / "b" / "masks" / "B_0_patch_000_000_label.png", np.ones((16, 16), np.uint8))
    choose(root, tmp_path / "out", "--count", "1")
    assert "1 masks have no image of the same name" in caplog.text
