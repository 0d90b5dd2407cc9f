"""V4 through its command line, on the plantation."""

import csv
import json

import pytest
import torch

from experiments.console import run_script
from experiments.train_v4 import main
from ignite_salak.data.plantation import SALAK_CLASSES

FOREIGN = ("--st-start-iter", "--no-use-classwise-threshold")
COLORS = ("--color-jitter", "0.5", "0.5", "0.5", "0.25", "--grayscale=0.2", "--blur=0.5")


@pytest.fixture
def run(shared_plantation, tmp_path, tiny_flags):
    """Returns a function that runs the script into a folder of tmp_path."""

    def start(name, *flags):
        kept = [flag for flag in tiny_flags if not flag.startswith(FOREIGN)]
        folder = tmp_path / name
        where = [f"--data-root={shared_plantation.root}", f"--checkpoint-dir={folder}"]
        return run_script(main, [*kept, *where, *flags]), folder

    return start


def history(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_trains_and_losses_fall(run):
    flags = ("--num-steps=40", "--eval-every=40", "--log-every=10", "--st-ramp-iters=30")
    bounds = ("--threshold-bounds", "0.2", "0.95")
    status, folder = run("run", *flags, "--batch-size=4", "--save-pred-every=40", *bounds)
    assert status == 0
    rows = history(folder)
    losses = [float(row["ce"]) for row in rows]
    assert losses[-1] < 0.9 * losses[0]
    assert float(rows[-1]["st_px"]) > 0
    assert 0 < float(rows[0]["st_weight"]) < float(rows[-1]["st_weight"]) == 1.0
    saved = torch.load(folder / "best_model_ema.pth")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert saved["facts"]["thresholds"] != config["thresholds"]  # they moved
    factors, latest = saved["facts"]["alignment"], torch.load(folder / "latest_checkpoint.pth")
    assert list(factors) == list(SALAK_CLASSES.names)
    labeled = torch.tensor(list(factors.values())) * latest["alignment"]["mean"]
    assert labeled.sum().item() == pytest.approx(1.0)  # a factor: labelled share / mean vote
    assert max(factors.values()) > 1.01
    assert (folder / "panels" / "unlabeled_000040.png").is_file()
    with (folder / "source_classes.csv").open(encoding="utf-8", newline="") as file:
        watched = list(csv.DictReader(file))
    assert {row["iteration"] for row in watched} == {"40"}
    assert {row["source"] for row in watched} == set(config["sources"]["unlabelled"])
    for row in watched:
        shares = [float(row[f"share/{name}"]) for name in SALAK_CLASSES.names]
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "flags",
    [
        (),
        (
            "--no-quantile-thresholds",
            "--cutmix=0",
            "--no-paste",
            "--alignment=0",
            "--teacher-views=0",
        ),
        (
            "--rare-sampling",
            "--logit-adjustment=0.5",
            "--doubt-weights",
            "--keep-share-of=predicted",
            *COLORS,
        ),
        (
            "--alignment=0.5",
            "--teacher-views=3",
            "--random-turns",
            "--aspp-rates",
            "2",
            "4",
        ),
    ],
    ids=["default", "off", "others", "more"],
)
def test_resume_is_exact(run, flags):
    status, whole = run("whole", "--num-steps=6", *flags)
    assert status == 0
    latest = whole / "checkpoint_4.pth"
    status, again = run("again", "--num-steps=6", f"--restore-from={latest}", *flags)
    assert status == 0
    first, second = (torch.load(folder / "final_model.pth")["weights"] for folder in (whole, again))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    first, second = (
        torch.load(folder / "latest_checkpoint.pth")["thresholds"] for folder in (whole, again)
    )
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.parametrize("count", [-1, 9])
def test_views_that_do_not_exist_are_refused(run, capsys, count):
    status, _ = run("views", f"--teacher-views={count}")
    assert status == 2
    assert f"error: --teacher-views {count}: expected 0 to 8" in capsys.readouterr().err


def test_hints_stand_in_the_output_of_a_run(run, capsys):
    status, _ = run("hinted", "--num-steps=4", "--st-ramp-iters=5")
    assert status == 0
    assert "hint: --st-ramp-iters 5 is longer than the run" in capsys.readouterr().out


def test_without_self_training_nothing_unlabelled_is_drawn(run):
    status, folder = run("off", "--st-loss-weight=0")
    assert status == 0
    assert {row["st"] for row in history(folder) if row.get("st")} == {"0"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--color-jitter", "0", "0", "0", "0.7"], "hue 0.7 is not between 0 and 0.5"),
        (["--cutmix=1.5"], "1.5"),
        (["--threshold-start=1.2"], "start 1.2 of the thresholds"),
        (["--no-quantile-thresholds", "--confidence-threshold=1.2"], "confidence threshold 1.2"),
        (["--keep-share", "0", "0.8"], "shares (0.0, 0.8)"),
        (["--keep-share-of=predicted", "--keep-share", "0", "0.8"], "shares (0.0, 0.8)"),
        (["--st-loss-weight=-1"], "--st-loss-weight -1"),
        (["--alignment=2"], "--alignment 2.0 is not between 0 and 1"),
        (["--aspp-rates", "0"], "ASPP rates (0,)"),
    ],
)
def test_wrong_flags_cost_one_line(run, capsys, flags, message):
    status, _ = run("wrong", *flags)
    assert status == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(error) == 1
    assert message in error[0]
