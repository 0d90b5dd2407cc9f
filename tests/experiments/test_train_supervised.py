"""The supervised recipe: V3's labelled half, and nothing of the unlabelled patches."""

import csv
import json
import shutil

import pytest
import torch

from experiments import train_v3
from experiments.console import run_script
from experiments.train_supervised import main
from ignite_salak.models.model_file import load_model

SELF_TRAINING = ("--st-start-iter", "--confidence-threshold", "--no-use-classwise-threshold")


@pytest.fixture(scope="module")
def flags(tiny_flags):
    return [flag for flag in tiny_flags if not flag.startswith(SELF_TRAINING)]


@pytest.fixture(scope="module")
def finished(shared_plantation, flags, tmp_path_factory):
    """A finished run; its folder."""
    folder = tmp_path_factory.mktemp("supervised")
    assert train(shared_plantation.root, folder, flags) == 0
    return folder


def train(root, folder, flags, *extra, script=main):
    given = [f"--data-root={root}", f"--checkpoint-dir={folder}", *flags, *extra]
    return run_script(script, [str(flag) for flag in given])


def read_history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(folder, name="final_model.pth"):
    return load_model(folder / name).model.state_dict()


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_it_is_v3_without_self_training_bit_for_bit(finished, shared_plantation, flags, tmp_path):
    other = tmp_path / "v3"
    extra = "--st-loss-weight=0"
    assert train(shared_plantation.root, other, flags, extra, script=train_v3.main) == 0
    rows, expected = read_history(finished), read_history(other)
    assert [row["iteration"] for row in rows] == ["2", "3", "4", "6"]
    assert {"loss", "ce", "dice", "focal", "grad_norm", "validation/mIoU"} <= set(rows[0])
    assert not {name for name in rows[0] if name.startswith("st")}
    for row, reference in zip(rows, expected, strict=True):
        for timing in ("images_per_second", "seconds_per_iteration"):
            row.pop(timing)
        assert {name: reference[name] for name in row} == row
    for name in ("final_model.pth", "final_model_ema.pth"):
        assert_same_weights(weights(finished, name), weights(other, name))


def test_no_unlabelled_file_is_opened(plantation, flags, tmp_path):
    for folder in ("salak-1-3", "salak-1-4"):
        for path in (plantation.root / folder / "images").iterdir():
            path.write_bytes(b"no image")
    assert train(plantation.root, tmp_path / "run", flags) == 0
    panels = {path.name for path in (tmp_path / "run" / "panels").iterdir()}
    assert panels == {"validation_000003.png", "validation_000006.png"}


def test_resume_is_exact(finished, shared_plantation, flags, tmp_path):
    checkpoint = shutil.copy(finished / "checkpoint_4.pth", tmp_path)
    assert train(shared_plantation.root, tmp_path, flags, f"--restore-from={checkpoint}") == 0
    for name in ("final_model.pth", "final_model_ema.pth"):
        assert_same_weights(weights(tmp_path, name), weights(finished, name))


def test_losses_fall(shared_plantation, flags, tmp_path):
    long = "--num-steps=30 --eval-every=30 --log-every=10 --panels=0 --no-multi-scale "
    long += "--batch-size=4 --no-use-class-weights --save-latest-every=99 --save-pred-every=99"
    assert train(shared_plantation.root, tmp_path / "run", flags, *long.split()) == 0
    losses = [float(row["loss"]) for row in read_history(tmp_path / "run")]
    assert losses[-1] < 0.9 * losses[0]


def test_config_does_the_run_again(finished, tmp_path):
    config = json.loads((finished / "config.json").read_text(encoding="utf-8"))
    assert "self_training" not in config["options"]
    given = ["--config", str(finished / "config.json"), f"--checkpoint-dir={tmp_path}"]
    assert run_script(main, given) == 0
    assert_same_weights(weights(tmp_path), weights(finished))


@pytest.mark.parametrize(
    "flag", ["--num-heads=0", "--batch-size=1", "--grad-accumulation=0", "--ema-decay=1"]
)
def test_bad_values_are_one_line(capsys, shared_plantation, flags, tmp_path, flag):
    assert train(shared_plantation.root, tmp_path / "run", flags, flag) == 2
    [line] = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert flag.split("=")[0].removeprefix("--").split("-")[-1] in line


def test_flags_of_self_training_are_unknown(capsys, shared_plantation, flags, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main([f"--data-root={shared_plantation.root}", *flags, "--st-loss-weight=1"])
    assert ended.value.code == 2
    assert "st-loss-weight" in capsys.readouterr().err
