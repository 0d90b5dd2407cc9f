"""The command line: what it prints, what it refuses, and how."""

import numpy as np
import pytest
from PIL import Image

from experiments.console import run_script
from experiments.patchify import listed, main
from ignite_salak.classes import ClassMap
from ignite_salak.data.patches import scan_patches


@pytest.fixture
def photos(tmp_path, save, classes):
    """A photo with a mask and one without, 40 x 56 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name in ("DJI_0001.JPG", "DJI_0002.JPG"):
        save(folder / "images" / name, rng.integers(1, 256, (40, 56, 3)).astype(np.uint8))
    labels = rng.integers(0, 3, (40, 56)).astype(np.uint8)
    labels[0, 0] = 255
    save(folder / "masks" / "DJI_0001.png", labels)
    classes.to_csv(folder / "class_mapping.csv")
    return folder


@pytest.fixture
def run(tmp_path, photos, capsys):
    """Returns a function that runs the script: exit status, stdout, stderr."""

    def call(*flags, output=True):
        arguments = [str(photos), *flags]
        if output:
            arguments += ["--output", str(tmp_path / "out")]
        status = run_script(main, arguments)
        return status, *capsys.readouterr()

    return call


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def test_cuts_and_prints(tmp_path, run):
    status, printed, _ = run("--patch-size", "32", "--num-workers", "1")
    assert status == 0
    assert "2 photos -> 8 patches, 4 of them with masks, 0 empty ones dropped" in printed
    shares = [float(line.split()[1]) for line in printed.splitlines()[1:]]
    assert len(shares) == 4 and sum(shares[:3]) == pytest.approx(100, abs=0.05)
    assert shares[3] == pytest.approx(100 / 2240, abs=0.01)
    assert len(scan_patches(tmp_path / "out")) == 8


def test_stride_and_edge(tmp_path, run):
    assert run("--patch-size=32", "--stride=8", "--edge=drop")[0] == 0
    assert len(scan_patches(tmp_path / "out")) == 2 * 2 * 4


def test_black_as_content(tmp_path, photos, save, run):
    save(photos / "images" / "night.png", np.zeros((32, 32, 3), np.uint8))
    _, printed, _ = run("--patch-size=32", "--check", "--no-black-is-nodata", output=False)
    assert "would become 9 patches" in printed and "; 0 empty ones dropped" in printed
    status, printed, _ = run("--patch-size=32", "--no-black-is-nodata")
    assert (status, "-> 9 patches" in printed, "0 empty ones" in printed) == (0, True, True)
    assert (np.asarray(Image.open(tmp_path / "out/images/night_patch_000_000.png")) == 1).all()


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("keep", ["images", "images"]),
        ("source", ["DJI_0001/images", "DJI_0002/images"]),
        ("1", ["photos-001/images", "photos-002/images"]),
        ("2", ["photos-001/images", "photos-001/images"]),
    ],
)
def test_groups(tmp_path, run, group, expected):
    assert run("--patch-size=64", "--group", group)[0] == 0
    images = [name for name in names(tmp_path / "out") if "images/" in name]
    assert images == [
        f"{folder}/DJI_000{number}_patch_000_000.png"
        for number, folder in enumerate(expected, start=1)
    ]
    assert scan_patches(tmp_path / "out").has_mask.sum() == 1


def test_other_class_mapping(tmp_path, photos, run, classes):
    (photos / "class_mapping.csv").rename(tmp_path / "elsewhere.csv")
    assert run("--class-mapping", str(tmp_path / "elsewhere.csv"), "--mask-format=index")[0] == 0
    assert ClassMap.from_csv(tmp_path / "out" / "class_mapping.csv") == classes


def test_check_of_good_photos(tmp_path, run):
    status, printed, _ = run("--check", "--patch-size=32", output=False)
    assert status == 0
    assert "2 photos, 56 x 40 pixels; 1 with masks, 1 without" in printed
    assert "would become 8 patches of 32 x 32 (stride 32, edge pad), 4 of them" in printed
    assert "no problem found" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_check_lists_every_problem_and_fails(tmp_path, photos, run):
    (photos / "images" / "DJI_0003.JPG").write_bytes(b"")
    (photos / "images" / "DJI_0004.JPG").write_bytes(b"text")
    status, printed, error = run("--check")
    assert status == 2
    problems = [line for line in printed.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2 and "DJI_0003.JPG: the file is empty" in problems[0]
    assert "2 problem(s), listed above" in error
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_problems_are_one_line_and_point_to_check(tmp_path, photos, run):
    (photos / "images" / "DJI_0003.JPG").write_bytes(b"")
    (photos / "images" / "DJI_0004.JPG").write_bytes(b"text")
    status, _, error = run()
    assert status == 2
    assert "DJI_0003.JPG: the file is empty (and 1 more; --check lists all); nothing" in error
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_notes_are_logged(photos, save, run):
    save(photos / "masks" / "DJI_0009.png", np.zeros((4, 4), np.uint8))
    status, _, error = run()
    assert status == 0 and "DJI_0009.png: a mask without its photo" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--patch-size=8"], "--patch-size 8"),
        (["--stride=0"], "--stride 0"),
        (["--group=0"], "--group '0'"),
        (["--group=photo"], "--group 'photo' is neither 'keep', 'source' nor a number"),
        (["--num-workers=0"], "--num-workers 0"),
    ],
)
def test_wrong_values_are_one_line(run, flags, message):
    status, _, error = run(*flags)
    assert status == 2
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_output_is_needed_unless_only_looking(run):
    status, _, error = run(output=False)
    assert status == 2 and "--output is missing" in error


@pytest.mark.parametrize("missing", ["input", "class_mapping.csv"])
def test_missing_files_are_one_line(tmp_path, photos, capsys, missing):
    (photos / "class_mapping.csv").unlink()
    given = photos if missing == "class_mapping.csv" else tmp_path / "input"
    assert run_script(main, [str(given), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and missing in error
    assert not (tmp_path / "out").exists()


def test_colours_that_the_mapping_lacks(photos, save, run, classes):
    pixels = np.zeros((40, 56, 3), np.uint8)
    pixels[5, :10] = (250, 60, 0)
    save(photos / "masks" / "DJI_0001.png", pixels)
    status, printed, _ = run("--mask-format=color")
    assert status == 0 and "250 60 0: 10 pixels, nearest class water" in printed


def test_no_masks(photos, run):
    (photos / "masks" / "DJI_0001.png").unlink()
    assert "no masks: all patches are unlabelled" in run()[1]


def test_listed():
    assert listed(["a"] * 10) == ["a"] * 10
    assert listed(["a"] * 12) == [*["a"] * 10, "  ... and 2 more"]
