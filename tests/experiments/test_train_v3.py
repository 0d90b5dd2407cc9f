"""The V3 script: files, options, refusals."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.console import run_script
from experiments.train_v3 import main
from ignite_salak.models.model_file import load_model

SCRIPT = Path(__file__).parents[2] / "experiments" / "train_v3.py"


def train(root, folder, flags, *extra):
    given = [f"--data-root={root}", f"--checkpoint-dir={folder}", *flags, *extra]
    return run_script(main, [str(flag) for flag in given])


def read_history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(shared_plantation, tiny_flags, tmp_path_factory):
    """A finished run with TensorBoard; its folder."""
    folder = tmp_path_factory.mktemp("finished")
    assert train(shared_plantation.root, folder, tiny_flags, "--tensorboard") == 0
    return folder


def test_files_of_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        *("latest_checkpoint.pth", "checkpoint_4.pth", "best_model_ema.pth", "final_model.pth"),
        *("final_model_ema.pth", "config.json", "history.csv", "tensorboard", "panels"),
        *("summary.json", "report.html", "source_classes.csv", "validation.txt"),
    }
    assert list((finished / "tensorboard").iterdir())
    assert {path.name for path in (finished / "panels").iterdir()} == {
        f"{pool}_{iteration}.png"
        for pool in ("validation", "unlabeled")
        for iteration in ("000003", "000006")
    }
    saved = load_model(finished / "best_model_ema.pth")
    assert saved.model(torch.rand(1, 3, 32, 32)).shape == (3, 1, 7, 32, 32)
    assert saved.facts["scores"]["mIoU"] >= 0
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    for pool in ("labelled", "validation"):
        assert saved.facts["sources"][pool] == config["sources"][pool]
    assert saved.facts["thresholds"] == config["thresholds"]
    listed = (finished / "validation.txt").read_text(encoding="utf-8").splitlines()
    assert listed == config["sources"]["validation"]


def test_history_has_losses_st_pixels_and_scores(finished):
    rows = read_history(finished)
    assert [row["iteration"] for row in rows] == ["2", "3", "4", "6"]
    for name in ("loss", "ce", "dice", "focal", "st", "grad_norm", "lr/encoder", "ema_decay"):
        assert float(rows[-1][name]) >= 0
    assert float(rows[-1]["st_px"]) > 0
    assert float(rows[-1]["st_px/Snake Fruit"]) >= 0
    assert "st_px/__background__" not in rows[-1]
    assert float(rows[-1]["lr/decoder"]) == pytest.approx(
        10 * float(rows[-1]["lr/encoder"]), rel=1e-4
    )
    assert 0 <= float(rows[-1]["validation/mIoU"]) <= 1


def test_config_says_what_is_needed_to_do_it_again(finished, shared_plantation, tmp_path):
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert config["options"]["schedule"]["num_steps"] == 6
    assert config["options"]["run"]["threads"] == 1
    assert config["environment"]["packages"]["torch"] == torch.__version__.split("+")[0]
    assert config["thresholds"]["Badan Air"] == 0.2
    assert not set(config["sources"]["labelled"]) & set(config["sources"]["validation"])
    again = tmp_path / "again"
    flags = ["--config", str(finished / "config.json"), f"--checkpoint-dir={again}"]
    assert run_script(main, flags) == 0
    for name in ("final_model_ema.pth", "final_model.pth"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()


def test_a_folder_with_a_run_is_not_written_over(finished, shared_plantation, tiny_flags, capsys):
    before = (finished / "best_model_ema.pth").stat().st_mtime_ns
    assert train(shared_plantation.root, finished, tiny_flags) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (finished / "best_model_ema.pth").stat().st_mtime_ns == before


def test_a_finished_run_says_so_and_trains_nothing(
    finished, shared_plantation, tiny_flags, capsys, tmp_path
):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    latest = folder / "latest_checkpoint.pth"
    before = {path.name: path.read_bytes() for path in folder.glob("*.pth")}
    assert train(shared_plantation.root, folder, tiny_flags, f"--restore-from={latest}") == 0
    assert "the run is complete: 6 of 6 iterations" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.glob("*.pth")} == before


def test_the_guides_flags_are_there(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    valued = (
        "data-root class-mapping num-classes batch-size num-steps checkpoint-dir eval-every "
        "save-pred-every save-latest-every wandb-project backbone output-stride num-heads "
        "ce-weight dice-weight focal-weight confidence-threshold st-loss-weight scale-min "
        "scale-max learning-rate warmup-iters gradient-clip ema-decay val-split restore-from "
        "seed device num-workers threads input-size early-stop-patience labeled-files val-files "
        "encoder-weights st-start-iter classwise-thresholds precision clearml-project "
        "clearml-run-name wandb-run-name wandb-mode panels"
    )
    switches = (
        "use-multi-head use-combined-loss use-class-weights use-classwise-threshold multi-scale "
        "random-mirror random-scale pretrained tensorboard clearml-offline"
    )
    for flag in valued.split():
        assert f"--{flag}" in shown
    for flag in switches.split():
        assert f"--{flag}" in shown
        assert f"--no-{flag}" in shown


def test_defaults_are_the_guides(tmp_path):
    from experiments.train_v3 import Options

    options = Options()
    assert (options.model.backbone, options.model.output_stride, options.model.num_heads) == (
        "resnet50",
        16,
        3,
    )
    assert options.loss.weights() == {"ce": 0.4, "dice": 0.4, "focal": 0.2}
    schedule = options.schedule
    assert (schedule.batch_size, schedule.num_steps, schedule.learning_rate) == (8, 50000, 2.5e-4)
    assert (schedule.warmup_iters, schedule.gradient_clip, schedule.ema_decay) == (1000, 10, 0.9995)
    assert options.augmentation.sizes(None) == (256, 384)
    assert options.augmentation.sizes(128) == (128, 192)
    assert options.self_training.confidence_threshold == 0.65
    run = options.run
    assert (run.eval_every, run.save_pred_every, run.save_latest_every) == (500, 5000, 100)


def test_switches_can_be_switched_off(shared_plantation, tiny_flags, tmp_path):
    folder = tmp_path / "run"
    off = (
        "--no-use-multi-head --no-use-combined-loss --no-use-class-weights --no-multi-scale "
        "--no-random-mirror --no-random-scale --st-loss-weight=0 --output-stride=8"
    )
    assert train(shared_plantation.root, folder, tiny_flags, *off.split()) == 0
    saved = load_model(folder / "final_model.pth")
    assert saved.spec.num_heads == 1
    assert saved.spec.output_stride == 8
    row = read_history(folder)[-1]
    assert "dice" not in row
    assert float(row["st_px"]) == 0
    assert float(row["loss"]) == pytest.approx(float(row["ce"]), rel=1e-5)


def test_bf16_trains_too(shared_plantation, tiny_flags, tmp_path):
    folder = tmp_path / "run"
    assert train(shared_plantation.root, folder, tiny_flags, "--precision=bf16") == 0
    assert float(read_history(folder)[-1]["loss"]) > 0
    weights = torch.load(folder / "final_model.pth", weights_only=True)["weights"]
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_trains_on_a_gpu(shared_plantation, tiny_flags, tmp_path, precision):
    folder = tmp_path / "run"
    flags = [*tiny_flags, "--device=cuda", f"--precision={precision}", "--num-workers=2"]
    assert train(shared_plantation.root, folder, flags) == 0
    assert float(read_history(folder)[-1]["loss"]) > 0
    latest = f"--restore-from={folder / 'checkpoint_4.pth'}"
    assert train(shared_plantation.root, folder, flags, latest) == 0


def train_apart(root, folder, flags, *extra):
    """Trains in a process of its own, without credentials of any service; returns its stderr."""
    folder.mkdir()
    config = folder / "clearml.conf"
    config.write_text("sdk { development { report_use_subprocess: false } }", encoding="utf-8")
    services = ("CLEARML_", "TRAINS_", "WANDB_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(services)}
    environment |= {
        "CLEARML_CONFIG_FILE": str(config),
        "CLEARML_CACHE_DIR": str(folder),
        "WANDB_CONFIG_DIR": str(folder),
        "NETRC": str(folder / "netrc"),
    }
    given = [f"--data-root={root}", f"--checkpoint-dir={folder / 'run'}", *flags, *extra]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train_v3", *given],
        env=environment,
        cwd=SCRIPT.parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "final_model_ema.pth").exists()
    return done.stderr


@pytest.mark.slow
def test_flags_switch_clearml_and_wandb_on_and_offline(shared_plantation, tiny_flags, tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    clearml = ["--clearml-project=salak", "--clearml-run-name=first", "--clearml-offline"]
    wandb = ["--wandb-project=salak", "--wandb-run-name=first", "--wandb-mode=offline"]
    folder = tmp_path / "both"
    errors = train_apart(shared_plantation.root, folder, tiny_flags, *clearml, *wandb)
    assert "reports no more" not in errors
    [archive] = folder.glob("offline/*.zip")
    with zipfile.ZipFile(archive) as session:
        assert json.loads(session.read("task.json"))["name"] == "first"
        assert b"st_px" in session.read("metrics.jsonl")
    [written] = (folder / "run").glob("wandb/offline-run-*/*.wandb")
    assert b"train/st_px" in written.read_bytes()


@pytest.mark.slow
def test_without_credentials_each_service_is_one_warning(shared_plantation, tiny_flags, tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    flags = [*tiny_flags, "--clearml-project=salak", "--wandb-project=salak"]
    errors = train_apart(shared_plantation.root, tmp_path / "none", flags)
    warned = [line for line in errors.splitlines() if "reports no more" in line]
    assert [line.split()[:2] for line in warned] == [
        ["WARNING:", "ClearMLMonitor"],
        ["WARNING:", "WandBMonitor"],
    ]
    assert "--clearml-offline" in warned[0]
    assert "--wandb-mode offline" in warned[1]


def test_early_stopping_only_when_asked(capsys, shared_plantation, tiny_flags, tmp_path):
    # A learning rate this small never improves the first score.
    flags = [*tiny_flags, "--eval-every=1", "--learning-rate=1e-30", "--weight-decay=0"]
    flags += ["--ema-decay=0", "--st-loss-weight=0", "--early-stop-patience=2"]
    folder = tmp_path / "run"
    assert train(shared_plantation.root, folder, flags) == 0
    iterations = [int(row["iteration"]) for row in read_history(folder)]
    assert iterations[-1] < 6
    assert (folder / "final_model_ema.pth").exists()
    before = (folder / "latest_checkpoint.pth").read_bytes()
    restore = f"--restore-from={folder / 'latest_checkpoint.pth'}"
    assert train(shared_plantation.root, folder, flags, restore) == 0
    assert "the run is complete" in capsys.readouterr().out
    assert (folder / "latest_checkpoint.pth").read_bytes() == before


# Bad input: one line, exit status 2, nothing written over


def refused(capsys, root, folder, flags, *extra):
    """Returns the one line with which a run is refused."""
    assert train(root, folder, flags, *extra) == 2
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("error:") or "Traceback" in line
    ]
    assert len(lines) == 1
    assert not list(folder.glob("*.pth"))
    return lines[0]


def first_file(folder, kind):
    return sorted((folder / "salak-1-1" / kind).iterdir())[0]


def test_no_such_folder(capsys, tmp_path, tiny_flags):
    line = refused(capsys, tmp_path / "nowhere", tmp_path / "run", tiny_flags)
    assert "nowhere" in line
    assert "not a folder" in line


def test_no_images(capsys, plantation, tmp_path, tiny_flags):
    for folder in plantation.root.glob("salak-*"):
        shutil.rmtree(folder)
    assert "images" in refused(capsys, plantation.root, tmp_path / "run", tiny_flags)
    (plantation.root / "images").mkdir()
    assert "no image" in refused(capsys, plantation.root, tmp_path / "run", tiny_flags)


def test_no_masks(capsys, plantation, tmp_path, tiny_flags):
    for folder in plantation.root.glob("salak-*/masks"):
        shutil.rmtree(folder)
    assert "no mask" in refused(capsys, plantation.root, tmp_path / "run", tiny_flags)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist"),
        ("a,0 0 0\nb,1 2\n", "line 2"),
        ("a,0 0 0\nb,0 0 0\n", "duplicate class colour"),
        ("", "no class"),
    ],
)
def test_bad_class_mapping(capsys, plantation, tmp_path, tiny_flags, text, words):
    plantation.class_mapping.unlink()
    if text is not None:
        plantation.class_mapping.write_text(text, encoding="utf-8")
    assert words in refused(capsys, plantation.root, tmp_path / "run", tiny_flags)


@pytest.mark.parametrize("classes", [6, 8])
def test_another_number_of_classes(capsys, shared_plantation, tmp_path, tiny_flags, classes):
    line = refused(
        capsys, shared_plantation.root, tmp_path / "run", tiny_flags, f"--num-classes={classes}"
    )
    assert f"--num-classes {classes}" in line
    assert "7" in line


def test_mask_of_another_size(capsys, plantation, tmp_path, tiny_flags):
    path = first_file(plantation.root, "masks")
    Image.open(path).resize((16, 16), Image.Resampling.NEAREST).save(path)
    line = refused(capsys, plantation.root, tmp_path / "run", tiny_flags)
    assert str(path) in line
    assert "16 x 16" in line


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("keep", [0, 60])
def test_truncated_or_empty_file(capsys, plantation, tmp_path, tiny_flags, kind, keep):
    path = first_file(plantation.root, kind)
    path.write_bytes(path.read_bytes()[:keep])
    line = refused(capsys, plantation.root, tmp_path / "run", tiny_flags)
    assert str(path) in line
    assert "--skip-bad-files" in line
    assert train(plantation.root, tmp_path / "run", tiny_flags, "--skip-bad-files") == 0
    assert str(path) in capsys.readouterr().err


def test_truncated_unlabelled_file(capsys, plantation, tmp_path, tiny_flags):
    for path in (plantation.root / "salak-1-4" / "images").iterdir():
        path.write_bytes(b"")
    for path in sorted((plantation.root / "salak-1-3" / "images").iterdir())[1:]:
        path.unlink()
    assert train(plantation.root, tmp_path / "run", tiny_flags) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error:")
    assert "salak-1-4" in line
    assert "--skip-bad-files" in line
    flags = [*tiny_flags, "--skip-bad-files", "--overwrite"]
    assert train(plantation.root, tmp_path / "run", flags) == 0
    assert "salak-1-4" in capsys.readouterr().err


def recolor(plantation, share):
    """Paints the upper part of every mask in an unlisted colour."""
    for path in plantation.root.glob("salak-*/masks/*.png"):
        pixels = np.array(Image.open(path).convert("RGB"))
        pixels[: round(share * len(pixels))] = (1, 2, 3)
        Image.fromarray(pixels).save(path)


def test_unlisted_colours(capsys, plantation, tmp_path, tiny_flags):
    recolor(plantation, 0.10)
    line = refused(capsys, plantation.root, tmp_path / "run", tiny_flags)
    assert "1 2 3" in line
    assert "5 %" in line


def test_few_unlisted_colours_are_counted_and_ignored(capsys, plantation, tmp_path, tiny_flags):
    recolor(plantation, 1 / 32)
    assert train(plantation.root, tmp_path / "run", tiny_flags) == 0
    warned = capsys.readouterr().err
    assert "1 2 3" in warned
    assert "3.12 %" in warned


def test_class_index_out_of_range(capsys, plantation, tmp_path, tiny_flags):
    path = first_file(plantation.root, "masks")
    Image.fromarray(np.full((32, 32), 9, dtype=np.uint8)).save(path)
    line = refused(capsys, plantation.root, tmp_path / "run", tiny_flags)
    assert str(path) in line
    assert "class index 9" in line


def test_validation_that_overlaps_the_labelled_list(
    capsys, shared_plantation, tmp_path, tiny_flags
):
    listing = tmp_path / "val.txt"
    listing.write_text("DJI_0001.JPG\n", encoding="utf-8")
    flags = [*tiny_flags, f"--labeled-files={shared_plantation.labeled_files}"]
    line = refused(
        capsys, shared_plantation.root, tmp_path / "run", flags, f"--val-files={listing}"
    )
    assert "DJI_0001" in line
    assert "must not be trained on" in line


def test_a_listed_name_that_matches_nothing(capsys, shared_plantation, tmp_path, tiny_flags):
    listing = tmp_path / "labeled.txt"
    listing.write_text("DJI_0001.JPG\nDJI_9999.JPG\n", encoding="utf-8")
    line = refused(
        capsys, shared_plantation.root, tmp_path / "run", tiny_flags, f"--labeled-files={listing}"
    )
    assert "DJI_9999" in line
    assert "line 2" in line


def test_batch_larger_than_the_data(capsys, shared_plantation, tmp_path, tiny_flags):
    line = refused(
        capsys, shared_plantation.root, tmp_path / "run", tiny_flags, "--batch-size=1000"
    )
    assert "--batch-size 1000" in line


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-heads=0"],
        ["--output-stride=4"],
        ["--backbone=resnet5"],
        ["--warmup-iters=6"],
        ["--ema-decay=1"],
        ["--scale-min=200", "--scale-max=100"],
        ["--classwise-thresholds", "Snake Fruit"],
        ["--classwise-thresholds", "Durian=0.5"],
        ["--confidence-threshold=1.5"],
        ["--eval-every=0"],
        ["--device=quantum"],
        ["--panels=-1"],
        ["--clearml-offline"],
        ["--clearml-run-name=a"],
        ["--wandb-mode=offline"],
        ["--wandb-run-name=a"],
        ["--restore-from=nowhere.pth"],
        ["--val-split=1.5"],
        ["--batch-size=0"],
        ["--batch-size=1", "--st-loss-weight=0"],
        ["--learning-rate=0"],
        ["--num-steps=0"],
        ["--random-scale-range", "2", "1"],
        ["--threads=-1"],
        ["--input-size=0"],
        ["--input-size=15"],
        ["--scale-min=0"],
        ["--scale-max=0"],
        ["--early-stop-patience=0"],
        ["--num-workers=-1"],
    ],
)
def test_bad_values(capsys, shared_plantation, tmp_path, tiny_flags, flags):
    refused(capsys, shared_plantation.root, tmp_path / "run", tiny_flags, *flags)


def test_another_architecture_or_class_list_is_not_resumed(
    capsys, finished, plantation, shared_plantation, tmp_path, tiny_flags
):
    restore = f"--restore-from={finished / 'checkpoint_4.pth'}"
    line = refused(
        capsys, shared_plantation.root, tmp_path / "run", tiny_flags, restore, "--num-heads=2"
    )
    assert "architecture" in line
    renamed = plantation.class_mapping.read_text(encoding="utf-8").replace("Jalan", "Road")
    plantation.class_mapping.write_text(renamed, encoding="utf-8")
    line = refused(capsys, plantation.root, tmp_path / "run", tiny_flags, restore)
    assert "class list" in line


@pytest.mark.parametrize("how", [["-m", "experiments.train_v3"], [str(SCRIPT)]])
def test_a_wrong_flag_is_exit_status_2(how, tmp_path):
    command = [sys.executable, *how, "--no-such-flag"]
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr


def test_resuming_with_other_options_names_them(capsys, finished, shared_plantation, tmp_path):
    flags = ["--config", str(finished / "config.json"), f"--checkpoint-dir={tmp_path / 'run'}"]
    flags += [f"--restore-from={finished / 'checkpoint_4.pth'}", "--st-loss-weight=0.5"]
    assert run_script(main, flags) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "continuing with" in line]
    assert warned == ["WARNING: continuing with --st-loss-weight 0.5 instead of 1.0"]
