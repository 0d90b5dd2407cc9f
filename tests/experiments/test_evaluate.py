"""The evaluation script: the run's own scores, pools, pseudo-labels, refusals, memory."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from experiments import train_v3
from experiments.console import parse, run_script
from experiments.evaluate import main
from ignite_salak.alignment import align
from ignite_salak.data.decoding import MaskReader, read_image
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.plantation import SALAK_CLASSES
from ignite_salak.models.model_file import ModelSpec, load_model, save_model
from ignite_salak.pseudo_labels import select_pseudo_labels
from ignite_salak.voting import predict_once

ROOT = Path(__file__).parents[2]
LABELED, VALIDATION, SPARE = "DJI_0001", ("DJI_0002", "DJI_0003"), "DJI_0004"


def evaluate(checkpoint, root, output, *flags):
    given = [f"--checkpoint={checkpoint}", f"--data-root={root}", f"--output={output}"]
    return run_script(main, [*given, "--num-workers=0", "--threads=1", "--batch-size=2", *flags])


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def read_metrics(folder):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads((folder / "metrics.json").read_text("utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def run(shared_plantation, tiny_flags, tmp_path_factory):
    """Returns a function that trains with an input size, once, and returns the best model."""
    finished = {}

    def train(input_size=None):
        if input_size not in finished:
            folder = tmp_path_factory.mktemp("run")
            (folder / "labeled.txt").write_text(LABELED, "utf-8")
            (folder / "val.txt").write_text("\n".join(VALIDATION), "utf-8")
            flags = [
                *(f"--data-root={shared_plantation.root}", f"--checkpoint-dir={folder}"),
                *(f"--labeled-files={folder}/labeled.txt", f"--val-files={folder}/val.txt"),
                *([] if input_size is None else [f"--input-size={input_size}"]),
            ]
            assert run_script(train_v3.main, [*tiny_flags, *flags]) == 0
            finished[input_size] = folder / "best_model_ema.pth"
        return finished[input_size]

    return train


@pytest.mark.parametrize("input_size", [None, 24])
def test_the_runs_own_settings_give_exactly_the_scores_of_the_run(
    run, shared_plantation, tmp_path, input_size
):
    flags = [] if input_size is None else [f"--input-size={input_size}"]
    assert evaluate(run(input_size), shared_plantation.root, tmp_path, *flags) == 0
    ours, facts = read_metrics(tmp_path), load_model(run(input_size)).facts
    expected = {name: None if v != v else v for name, v in facts["scores"].items()}
    assert ours["scores"] == expected
    assert 0 < expected["mIoU"] < 1
    assert (ours["patches"], ours["source_images"]) == (32, 2)
    assert ours["checkpoint"]["facts"]["iteration"] == facts["iteration"]
    side = input_size or 32
    counts = np.array(read_csv(tmp_path / "confusion.csv"))[1:, 1:].astype(int)
    assert counts.sum() == 32 * side * side


def test_files_and_table(run, shared_plantation, tmp_path, capsys):
    assert evaluate(run(), shared_plantation.root, tmp_path / "a" / "b") == 0
    folder = tmp_path / "a" / "b"
    names = {"metrics.json", "confusion.csv", "confusion_shares.csv", "confusion.png"}
    names.add("source_images.csv")
    assert {path.name for path in folder.iterdir()} == names
    shown = capsys.readouterr().out
    metrics = read_metrics(folder)
    for key in ("mIoU", "mIoU_with_background", "accuracy"):
        assert f"{metrics['scores'][key]:.4f}" in shown
        assert f"{metrics['band'][key]:.4f}" in shown
    for name in SALAK_CLASSES.names:
        assert re.search(rf"^{name}  ", shown, re.MULTILINE)
    assert metrics["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    with Image.open(folder / "confusion.png") as image:
        assert min(image.size) > 400


def predictions(checkpoint, root, name):
    """Probabilities, truth and content of all patches of one source image."""
    model = load_model(checkpoint).model.to(memory_format=torch.channels_last)
    reader = MaskReader(SALAK_CLASSES, "color")
    for path in sorted(root.glob(f"*/images/{name}_*.png")):
        pixels = torch.from_numpy(read_image(path).copy()).permute(2, 0, 1)[None]
        mask, _ = reader.read(path.parents[1] / "masks" / path.name)
        with torch.no_grad():
            found = predict_once(model, pixels / 255)
        yield found, torch.from_numpy(mask)[None].long(), (pixels != 0).any(dim=1)


def test_the_confusion_is_that_of_scikit_learn(run, shared_plantation, tmp_path):
    listing = tmp_path / "list.txt"
    listing.write_text(SPARE, "utf-8")
    assert evaluate(run(), shared_plantation.root, tmp_path, f"--val-files={listing}") == 0
    expected = np.zeros((7, 7), int)
    for found, target, _ in predictions(run(), shared_plantation.root, SPARE):
        pairs = target.flatten().numpy(), found.argmax(dim=1).flatten().numpy()
        expected += confusion_matrix(*pairs, labels=range(7))
    counts = np.array(read_csv(tmp_path / "confusion.csv"))[1:, 1:].astype(int)
    assert np.array_equal(counts, expected)


def test_every_source_image_is_judged_by_itself(run, shared_plantation, tmp_path, capsys):
    listing = tmp_path / "list.txt"
    flag = f"--val-files={listing}"
    alone = {}
    for name in VALIDATION:
        listing.write_text(name, "utf-8")
        assert evaluate(run(), shared_plantation.root, tmp_path / name, flag) == 0
        alone[name] = read_metrics(tmp_path / name)
        assert "standard error" not in capsys.readouterr().out  # there is none of one image
        assert alone[name]["mIoU_error"] is None
    assert evaluate(run(), shared_plantation.root, tmp_path / "both") == 0
    both = read_metrics(tmp_path / "both")
    named = {name.split("/")[-1]: matrix for name, matrix in both["confusions"].items()}
    assert named.keys() == set(VALIDATION)
    head, *rows = read_csv(tmp_path / "both" / "source_images.csv")
    wrong = [int(row[2]) for row in rows]
    assert wrong == sorted(wrong, reverse=True)
    for row in rows:
        name = row[0].split("/")[-1]
        counts = np.array(read_csv(tmp_path / name / "confusion.csv"))[1:, 1:].astype(int)
        assert np.array_equal(named[name], counts)
        values = dict(zip(head[1:], row[1:], strict=True))
        pixels, wrong = counts.sum(), counts.sum() - np.trace(counts)
        assert (int(values["pixels"]), int(values["wrong pixels"])) == (pixels, wrong)
        for score in ("accuracy", "mIoU", "IoU/Jalan"):
            expected = alone[name]["scores"][score]
            assert values[score] == ("" if expected is None else f"{expected:.6f}")
    # Two images: the error is half of the distance of their scores.
    first, second = (alone[name]["scores"]["mIoU"] for name in VALIDATION)
    assert both["mIoU_error"] == pytest.approx(abs(first - second) / 2)
    shown = capsys.readouterr().out
    assert f"standard error of the mIoU over 2 source images: {both['mIoU_error']:.4f}" in shown
    for row in rows:
        assert row[0] in shown


def test_a_model_trained_small_is_judged_at_the_masks_own_size(
    run, shared_plantation, tmp_path, capsys
):
    assert evaluate(run(24), shared_plantation.root, tmp_path) == 0
    counts = np.array(read_csv(tmp_path / "confusion.csv"))[1:, 1:].astype(int)
    assert counts.sum() == 32 * 32 * 32
    assert "trained with --input-size 24" in capsys.readouterr().err


# Which patches


@pytest.mark.parametrize(
    ("flags", "patches", "sources", "warning"),
    [
        ((), 32, 2, None),
        (("--pool=labeled",), 16, 1, "1 of 1 source images were trained on"),
        (("--pool=unlabeled",), 16, 1, "64 further patches have no mask"),
        (("--pool=all",), 64, 4, "1 of 4 source images were trained on"),
        (("--pseudo-labels",), 16, 1, "64 further patches have no mask"),
        (("--pseudo-labels", "--pool=validation"), 32, 2, None),
    ],
)
def test_pools(run, shared_plantation, tmp_path, capsys, flags, patches, sources, warning):
    assert evaluate(run(), shared_plantation.root, tmp_path, *flags) == 0
    metrics = read_metrics(tmp_path)
    assert (metrics["patches"], metrics["source_images"]) == (patches, sources)
    said = capsys.readouterr().err
    if warning is None:
        assert "WARNING" not in said
    else:
        assert warning in said


@pytest.mark.parametrize("flag", ["--val-files", "--labeled-files"])
def test_lists(run, shared_plantation, tmp_path, capsys, flag):
    listing = tmp_path / "list.txt"
    listing.write_text(f"{SPARE}.JPG\nsalak-1-1/{LABELED}\n", "utf-8")
    assert evaluate(run(), shared_plantation.root, tmp_path, f"{flag}={listing}") == 0
    assert read_metrics(tmp_path)["patches"] == 32
    assert "1 of 2 source images were trained on" in capsys.readouterr().err


def test_a_model_that_was_trained_with_single_patches(
    shared_plantation, tiny_flags, tmp_path, capsys
):
    index = scan_patches(shared_plantation.root)
    names = [index.patch_name(patch) for patch in range(len(index))]
    whole = [name for name in names if f"/{LABELED}_" in name]
    chosen = [*whole[:5], next(name for name in names if f"/{SPARE}_" in name)]
    listing, run_folder = tmp_path / "labeled.txt", tmp_path / "run"
    listing.write_text("\n".join(chosen), "utf-8")
    (tmp_path / "val.txt").write_text("\n".join(VALIDATION), "utf-8")
    flags = [
        *(f"--data-root={shared_plantation.root}", f"--checkpoint-dir={run_folder}"),
        *(f"--labeled-files={listing}", f"--val-files={tmp_path / 'val.txt'}"),
    ]
    assert run_script(train_v3.main, [*tiny_flags, *flags]) == 0
    config = json.loads((run_folder / "config.json").read_text("utf-8"))
    assert config["labelled_patches"] == chosen
    for flag, patches, warning in (
        ("--pool=labeled", 6, "2 of 2 source images were trained on"),
        ("--pool=unlabeled", 26, "64 further patches have no mask"),
        ("--pool=validation", 32, ""),
        (f"--labeled-files={listing}", 6, "2 of 2 source images were trained on"),
    ):
        capsys.readouterr()
        model = run_folder / "best_model_ema.pth"
        assert evaluate(model, shared_plantation.root, tmp_path / "out", flag) == 0
        assert read_metrics(tmp_path / "out")["patches"] == patches
        said = capsys.readouterr().err
        assert warning in said
        assert ("were trained on" in said) == warning.endswith("trained on")


# Prediction


def test_test_time_augmentation_changes_the_maps(run, shared_plantation, tmp_path):
    found = []
    for number, flags in enumerate([(), ("--tta",), ("--tta", "--tta-scales", "0.75", "1.0")]):
        folder = tmp_path / str(number)
        assert evaluate(run(24), shared_plantation.root, folder, *flags) == 0
        found.append((folder / "confusion.csv").read_text("utf-8"))
    assert len(set(found)) == 3


def test_a_wider_band_holds_more_pixels(run, shared_plantation, tmp_path, capsys):
    shares = []
    for width in (1, 4):
        flag = f"--boundary-width={width}"
        assert evaluate(run(), shared_plantation.root, tmp_path, flag) == 0
        shown = capsys.readouterr().out
        shares.append(float(re.search(rf"band of {width} px .*\(([\d.]+) %", shown)[1]))
    assert 0 < shares[0] < shares[1] < 100


# Pseudo-labels


@pytest.fixture
def judged(run, shared_plantation, tmp_path, capsys):
    flags = ("--pseudo-labels", "--wanted-precision=0.05", "--min-pixels=20")
    assert evaluate(run(), shared_plantation.root, tmp_path, *flags) == 0
    return tmp_path, capsys.readouterr().out


def test_pseudo_labels_are_judged_as_the_step_selects_them(judged, run, shared_plantation):
    folder, _ = judged
    rows = {(row[0], row[1]): row[2:] for row in read_csv(folder / "pseudo_labels.csv")}
    kept, right = np.zeros(7, int), np.zeros(7, int)
    for found, target, content in predictions(run(), shared_plantation.root, SPARE):
        pseudo = select_pseudo_labels(found, torch.full((7,), 0.2), content)
        kept += pseudo.per_class.numpy()
        right += np.bincount(target[pseudo.labels == target].numpy(), minlength=7)
    assert kept.sum() > 0
    for index, name in enumerate(SALAK_CLASSES.names[1:], start=1):
        pixels, _, precision, _ = rows[name, "0.20"]
        assert int(pixels) == kept[index]
        if kept[index]:
            assert float(precision) == pytest.approx(right[index] / kept[index], abs=1e-6)
    assert int(rows["all classes", "0.20"][0]) == kept.sum()
    assert len(rows) == 1 + 7 * 100
    in_force = {entry["name"]: entry for entry in read_metrics(folder)["pseudo_labels"]["judged"]}
    assert in_force["Jalan"]["threshold"] == 0.2  # the checkpoint's own
    assert in_force["Jalan"]["kept"] == kept[3]


@pytest.fixture
def aligned(run, tmp_path):
    """Returns a model file that remembers by what V4 multiplied the votes, and these factors."""
    saved = load_model(run())
    factors = torch.tensor([0.5, 3.0, 1.0, 0.2, 1.5, 1.0, 2.0])
    named = dict(zip(saved.classes.names, factors.tolist(), strict=True))
    facts = {**saved.facts, "alignment": named}
    save_model(tmp_path / "aligned.pth", saved.model, saved.spec, saved.classes, facts)
    return tmp_path / "aligned.pth", factors


def test_pseudo_labels_of_v4_are_judged_as_it_shifts_them(
    aligned, judged, run, shared_plantation, tmp_path, capsys
):
    checkpoint, factors = aligned
    flags = ("--pseudo-labels", "--confidence-threshold=0.3")
    assert evaluate(checkpoint, shared_plantation.root, tmp_path / "shifted", *flags) == 0
    shown = capsys.readouterr().out
    assert "as in training (--no-alignment: as they are): " in shown
    assert "Jalan 0.20" in shown
    assert "train_v3" not in shown  # which would not shift the votes
    kept = np.zeros(7, int)
    for found, _, content in predictions(run(), shared_plantation.root, SPARE):
        pseudo = select_pseudo_labels(align(found, factors), torch.full((7,), 0.3), content)
        kept += pseudo.per_class.numpy()
    shifted = read_metrics(tmp_path / "shifted")
    assert [entry["kept"] for entry in shifted["pseudo_labels"]["judged"]][:-1] == list(kept[1:])
    assert shifted["pseudo_labels"]["alignment"]["Jalan"] == pytest.approx(0.2)
    plain = read_metrics(judged[0])
    assert shifted["scores"] == plain["scores"]  # the map is that of the votes as they are
    assert plain["pseudo_labels"]["alignment"] is None


def test_the_shift_can_be_left_out(aligned, run, shared_plantation, tmp_path):
    folders = [tmp_path / name for name in ("left_out", "never_there")]
    for folder, checkpoint in zip(folders, (aligned[0], run()), strict=True):
        flags = ("--pseudo-labels", "--no-alignment")
        assert evaluate(checkpoint, shared_plantation.root, folder, *flags) == 0
    first, second = (read_metrics(folder)["pseudo_labels"] for folder in folders)
    assert first == second


def test_the_printed_flag_is_one_that_training_takes(judged):
    folder, shown = judged
    [line] = [line for line in shown.splitlines() if "--classwise-thresholds" in line]
    options = parse(train_v3.Options, shlex.split(line))
    thresholds = options.self_training.thresholds(SALAK_CLASSES)
    suggested = read_metrics(folder)["pseudo_labels"]["suggested_thresholds"]
    assert dict(zip(SALAK_CLASSES.names[1:], thresholds[1:], strict=True)) == suggested
    assert '"Snake Fruit=' in line


def test_suggested_thresholds_reach_the_wanted_precision(judged):
    folder, shown = judged
    found = read_metrics(folder)["pseudo_labels"]
    rows = read_csv(folder / "pseudo_labels.csv")[1:]
    reached = 0
    for name, threshold in found["suggested_thresholds"].items():
        precisions = [float(r[4]) for r in rows if r[0] == name and r[4] and int(r[2]) >= 20]
        if threshold == 1.0 and precisions:
            assert max(precisions) < 0.05
            assert f"{name}: not reached" in shown
        elif precisions:
            above = [r for r in rows if r[0] == name and float(r[1]) >= threshold]
            below = [r for r in rows if r[0] == name and float(r[1]) < threshold]
            assert all(float(r[4]) < 0.05 for r in below if int(r[2]) >= 20)
            reached += bool(above)
        else:
            assert threshold == 0.2
            assert f"{name}: fewer than 20 pixels" in shown
    assert reached


def test_the_curves_are_drawn_and_older_ones_do_not_stay(judged, run, shared_plantation):
    folder, _ = judged
    with Image.open(folder / "pseudo_labels.png") as image:
        assert min(image.size) > 400
    assert evaluate(run(), shared_plantation.root, folder) == 0
    assert not list(folder.glob("pseudo_labels*"))
    assert "pseudo_labels" not in read_metrics(folder)


def test_thresholds_can_be_given(run, shared_plantation, tmp_path):
    flags = ("--confidence-threshold=0.4", "--classwise-thresholds", "snake fruit=0.5", "1=0.6")
    assert evaluate(run(), shared_plantation.root, tmp_path, "--pseudo-labels", *flags) == 0
    judged = read_metrics(tmp_path)["pseudo_labels"]["judged"]
    in_force = [entry["threshold"] for entry in judged]
    assert in_force == [0.6, 0.4, 0.4, 0.4, 0.5, 0.4, None]


# Bad input: one line, exit status 2, nothing written


def refused(capsys, checkpoint, root, output, *flags):
    """Returns the one line with which an evaluation is refused."""
    assert evaluate(checkpoint, root, output, *flags) == 2
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error:") or "Traceback" in line
    ]
    assert len(lines) == 1
    assert not (output / "metrics.json").exists()
    return lines[0]


def test_wrong_checkpoints(capsys, run, shared_plantation, tmp_path):
    text = tmp_path / "text.pth"
    text.write_text("no model", "utf-8")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(run().read_bytes()[:-3000])
    state = run().parent / "latest_checkpoint.pth"
    for path in (text, broken, state, tmp_path / "nowhere.pth", tmp_path):
        line = refused(capsys, path, shared_plantation.root, tmp_path / "out")
        assert str(path) in line
        assert "best_model_ema.pth" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Jalan", "Sungai", "class 3 is 'Jalan' (109 255 50) in the checkpoint, but 'Sungai'"),
        ("255 50 50", "255 50 51", "but 'Badan Air' (255 50 51) in"),
        ("Tanah Terbuka,109 50 255,\n", "", "has 7 classes, but"),
    ],
)
def test_another_class_list(capsys, run, shared_plantation, tmp_path, old, new, words):
    path = tmp_path / "other.csv"
    text = shared_plantation.class_mapping.read_text("utf-8").replace("\r\n", "\n")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    flag = f"--class-mapping={path}"
    line = refused(capsys, run(), shared_plantation.root, tmp_path / "out", flag)
    assert words in line
    assert str(path) in line


def test_the_mapping_of_the_data_root_is_compared_if_there_is_one(
    capsys, run, plantation, tmp_path
):
    text = plantation.class_mapping.read_text("utf-8")
    plantation.class_mapping.write_text(text.replace("Jalan", "Sungai"), "utf-8")
    assert "'Sungai'" in refused(capsys, run(), plantation.root, tmp_path / "out")
    plantation.class_mapping.unlink()
    assert evaluate(run(), plantation.root, tmp_path / "out") == 0
    flag = f"--class-mapping={plantation.class_mapping}"
    assert "does not exist" in refused(capsys, run(), plantation.root, tmp_path / "2", flag)


def test_no_masks(capsys, run, plantation, tmp_path):
    for folder in plantation.root.glob("salak-1-2/masks"):
        shutil.rmtree(folder)
    line = refused(capsys, run(), plantation.root, tmp_path / "out", "--pool=unlabeled")
    assert "none of the 80 patches" in line
    shutil.rmtree(plantation.root / "salak-1-1" / "masks")
    assert "has a mask" in refused(capsys, run(), plantation.root, tmp_path / "out")
    assert "has a mask" in refused(capsys, run(), plantation.root, tmp_path / "out", "--pool=all")


def test_no_such_data(capsys, run, tmp_path):
    assert "not a folder" in refused(capsys, run(), tmp_path / "none", tmp_path / "out")


def test_data_of_other_source_images(capsys, run, plantation, tmp_path):
    (plantation.root / "salak-1-1").rename(plantation.root / "other-1")
    (plantation.root / "salak-1-2").rename(plantation.root / "other-2")
    line = refused(capsys, run(), plantation.root, tmp_path / "out")
    assert "none of the 2 validation source images" in line
    assert "salak-1-1/DJI_0002" in line
    assert "--pool all" in line
    assert evaluate(run(), plantation.root, tmp_path / "out", "--pool=unlabeled") == 0
    assert read_metrics(tmp_path / "out")["patches"] == 64


def test_no_image_is_left_unlabelled(capsys, run, shared_plantation, tmp_path):
    saved = load_model(run())
    index = scan_patches(shared_plantation.root)
    names = {index.source_name(source) for source in range(len(index.sources))}
    validation = set(saved.facts["sources"]["validation"])
    sources = {"labelled": sorted(names - validation), "validation": sorted(validation)}
    facts = {**saved.facts, "sources": sources}
    save_model(tmp_path / "all.pth", saved.model, saved.spec, saved.classes, facts)
    for flag in ("--pool=unlabeled", "--pseudo-labels"):
        line = refused(capsys, tmp_path / "all.pth", shared_plantation.root, tmp_path, flag)
        assert "no source image is unlabelled" in line
        assert "--pool validation" in line


def test_some_validation_images_are_missing(capsys, run, plantation, tmp_path):
    (plantation.root / "salak-1-2").rename(plantation.root / "other")
    assert evaluate(run(), plantation.root, tmp_path / "out") == 0
    assert "1 of 2 validation source images are missing" in capsys.readouterr().err
    assert read_metrics(tmp_path / "out")["source_images"] == 1


def test_a_checkpoint_without_memory_of_its_images(capsys, run, shared_plantation, tmp_path):
    saved = load_model(run())
    facts = {"iteration": 6, "input_size": None}
    save_model(tmp_path / "old.pth", saved.model, saved.spec, saved.classes, facts)
    line = refused(capsys, tmp_path / "old.pth", shared_plantation.root, tmp_path / "out")
    assert "--val-files" in line
    flags = ("--pool=all", "--pseudo-labels")
    assert evaluate(tmp_path / "old.pth", shared_plantation.root, tmp_path, *flags) == 0
    judged = read_metrics(tmp_path)["pseudo_labels"]["judged"]
    assert [entry["threshold"] for entry in judged[:3]] == [0.60, 0.65, 0.70]  # the guide's


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--val-files=a.txt", "--labeled-files=b.txt"), "give one list"),
        (("--val-files=a.txt", "--pool=all"), "--pool all and the list a.txt"),
        (("--val-files=nowhere.txt",), "nowhere.txt"),
        (("--tta-scales", "0.5"), "needs --tta"),
        (("--tta", "--tta-scales", "0"), "expected numbers > 0"),
        (("--boundary-width=0",), "--boundary-width 0"),
        (("--input-size=4",), "--input-size 4"),
        (("--batch-size=0",), "--batch-size 0"),
        (("--pseudo-labels", "--wanted-precision=90"), "--wanted-precision 90"),
        (("--pseudo-labels", "--confidence-threshold=1.5"), "1.5"),
        (("--pseudo-labels", "--classwise-thresholds", "Durian=0.5"), "Durian"),
        (("--threads=-1",), "--threads -1"),
        (("--device=abacus",), "--device abacus"),
    ],
)
def test_bad_flags(capsys, run, shared_plantation, tmp_path, flags, words):
    assert words in refused(capsys, run(), shared_plantation.root, tmp_path / "out", *flags)


def test_bad_files_are_refused_or_left_out(capsys, run, plantation, tmp_path):
    path = sorted((plantation.root / "salak-1-1" / "images").glob("DJI_0002*"))[3]
    path.write_bytes(b"")
    line = refused(capsys, run(), plantation.root, tmp_path / "out")
    assert str(path) in line
    assert "--skip-bad-files" in line
    assert evaluate(run(), plantation.root, tmp_path / "out", "--skip-bad-files") == 0
    metrics = read_metrics(tmp_path / "out")
    assert metrics["patches"] == 31
    assert [str(path) in reason for reason in metrics["bad_files"]] == [True]


def test_all_files_bad(capsys, run, plantation, tmp_path):
    for path in plantation.root.glob("*/images/DJI_000[23]*"):
        path.write_bytes(b"")
    line = refused(capsys, run(), plantation.root, tmp_path / "out", "--skip-bad-files")
    assert "no patch is left" in line


# Memory

MEASURE = """
import resource, sys
from experiments.console import run_script
from experiments.evaluate import main
assert run_script(main, sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def link_patches(root, count):
    generator = np.random.default_rng(0)
    image = generator.integers(1, 256, (256, 256, 3), dtype=np.uint8)
    mask = generator.integers(0, 7, (16, 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    for kind, pixels in (("images", image), ("masks", mask)):
        (root / kind).mkdir(parents=True)
        first = root / kind / "photo_patch_000_000.png"
        Image.fromarray(pixels).save(first)
        for number in range(1, count):
            os.link(first, root / kind / f"photo_patch_{number // 100:03}_{number % 100:03}.png")
    return root


@pytest.mark.slow
def test_peak_memory_does_not_depend_on_the_number_of_patches(tmp_path):
    pytest.importorskip("resource")
    torch.manual_seed(0)
    spec = ModelSpec(7, "resnet18", decoder_channels=8)
    model = tmp_path / "model.pth"
    save_model(model, spec.build(), spec, SALAK_CLASSES, {"input_size": 32})
    peaks = []
    for count in (100, 1000):
        root = link_patches(tmp_path / str(count), count)
        flags = [f"--checkpoint={model}", f"--data-root={root}", f"--output={root}", "--pool=all"]
        flags += ["--pseudo-labels", "--num-workers=0", "--threads=1"]
        command = [sys.executable, "-c", MEASURE, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        peaks.append(int(done.stdout.split()[-1]) * unit)
    # 900 predictions of 256 x 256 bytes alone would be 59 MB.
    assert peaks[1] - peaks[0] < 30e6
