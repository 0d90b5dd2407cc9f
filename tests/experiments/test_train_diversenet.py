"""The DiverseHead recipe, with dynamic freezing and with dynamic dropout."""

import csv
import json
import shutil

import pytest
import torch

from experiments.console import run_script
from experiments.train_diversenet import DiverseOptions, Options, main
from ignite_salak.models.model_file import load_model

MODES = ("freezing", "dropout")
SELF_TRAINING = ("--confidence-threshold", "--no-use-classwise-threshold")


@pytest.fixture
def flags(tiny_flags):
    kept = [flag for flag in tiny_flags if not flag.startswith(SELF_TRAINING)]
    return [*kept, "--num-heads=4"]


def train(root, folder, flags, *extra):
    given = [f"--data-root={root}", f"--checkpoint-dir={folder}", *flags, *extra]
    return run_script(main, [str(flag) for flag in given])


def read_history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(folder, name):
    return load_model(folder / name).model.state_dict()


def assert_same_weights(first, second):
    for name in ("final_model.pth", "final_model_ema.pth"):
        expected = weights(second, name)
        assert all(torch.equal(v, expected[key]) for key, v in weights(first, name).items())


def test_defaults():
    options = Options()
    assert (options.model.num_heads, options.schedule.gradient_clip) == (10, 100.0)
    assert options.diverse.mode == "freezing"
    assert options.diverse.weight(10) == 7.5
    assert DiverseOptions(mode="dropout").weight(10) == 15.0
    assert DiverseOptions(st_loss_weight=2.0).weight(10) == 2.0
    assert options.diverse.perturb_from(15000) == 3501
    assert DiverseOptions(freeze_start_iter=7).perturb_from(15000) == 7
    assert DiverseOptions(mode="dropout").perturb_from(15000) == 1


@pytest.mark.parametrize("mode", MODES)
def test_it_trains_and_resumes_exactly(shared_plantation, flags, tmp_path, mode):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    flags = [*flags, f"--mode={mode}"]
    assert train(shared_plantation.root, whole, flags) == 0
    resumed.mkdir()
    checkpoint = shutil.copy(whole / "checkpoint_4.pth", resumed)
    assert train(shared_plantation.root, resumed, flags, f"--restore-from={checkpoint}") == 0
    assert_same_weights(whole, resumed)
    row = read_history(whole)[-1]
    for name in ("loss", "ce", "dice", "focal", "st", "st_px", "disagreement"):
        assert float(row[name]) >= 0
    assert float(row["st_px"]) > 0
    assert "st_px/__background__" not in row
    saved = load_model(whole / "best_model_ema.pth")
    assert saved.model(torch.rand(1, 3, 32, 32)).shape == (4, 1, 7, 32, 32)
    assert {path.name for path in (whole / "panels").iterdir()} == {
        f"{pool}_{iteration}.png"
        for pool in ("validation", "unlabeled")
        for iteration in ("000003", "000006")
    }
    config = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    assert config["options"]["diverse"]["mode"] == mode


@pytest.mark.parametrize("mode", MODES)
def test_losses_fall(shared_plantation, flags, tmp_path, mode):
    long = "--num-steps=30 --eval-every=30 --log-every=10 --panels=0 --no-multi-scale "
    long += "--batch-size=4 --no-use-class-weights --save-latest-every=99 --save-pred-every=99"
    extra = (*long.split(), "--st-start-iter=11", f"--mode={mode}")
    assert train(shared_plantation.root, tmp_path / "run", flags, *extra) == 0
    rows = read_history(tmp_path / "run")
    for name in ("ce", "dice"):
        assert float(rows[-1][name]) < float(rows[0][name])


def test_no_mask_of_an_unlabelled_image_is_read(plantation, few_masks, flags, tmp_path):
    for folder in ("salak-1-3", "salak-1-4"):
        masks = plantation.root / folder / "masks"
        assert not masks.exists() or not any(masks.iterdir())
    extra = (f"--labeled-files={few_masks}", "--val-split=0.5")
    assert train(plantation.root, tmp_path / "run", flags, *extra) == 0


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--no-use-multi-head"], "--num-heads 10"),
        (["--num-heads=11"], "11"),
        (["--st-loss-weight=-1"], "--st-loss-weight -1"),
        (["--mode=dropout", "--compile"], "--compile"),
    ],
)
def test_bad_values_are_one_line(capsys, shared_plantation, flags, tmp_path, extra, words):
    assert train(shared_plantation.root, tmp_path / "run", flags, *extra) == 2
    [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert words in line


def test_an_unknown_mode_is_exit_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--mode=melting"])
    assert ended.value.code == 2
    assert "melting" in capsys.readouterr().err
