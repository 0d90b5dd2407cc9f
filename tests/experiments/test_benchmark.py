"""The benchmark: its numbers fit together, and what it refuses."""

import json
import math

import pytest

from experiments.benchmark import main
from experiments.benchmark_options import Options
from experiments.console import parse, run_script

FLAGS = [
    "--backbone=resnet18",
    "--decoder-channels=8",
    "--scale-min=32",
    "--scale-max=48",
    "--batch-size=2",
    "--num-workers=0",
    "--threads=1",
    "--device=cpu",
    "--steps=2",
    "--warmup-steps=0",
    "--repetitions=2",
    "--eval-patches=20",
    "--batch-sizes",
    "2",
    "--image-sizes",
    "32",
    "48",
    "--growth-steps=1",
    "--patch-size=16",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the script in an empty folder; returns its exit status and its report."""
    monkeypatch.chdir(tmp_path)

    def start(*flags):
        status = run_script(main, [*FLAGS, *flags])
        path = tmp_path / "benchmark.json"
        return status, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    return start


def numbers(value):
    if isinstance(value, dict):
        for entry in value.values():
            yield from numbers(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from numbers(entry)
    elif isinstance(value, float):
        yield value


def test_it_measures_ours_and_the_plain_loop(run, shared_plantation, capsys):
    status, report = run(f"--data-root={shared_plantation.root}", "--peak-tflops=2")
    assert status == 0
    assert all(math.isfinite(number) for number in numbers(report))
    for name in ("ours", "plain"):
        found = report[name]
        step = found["step_seconds"]
        assert 0 < step["lowest"] <= step["median"] <= step["highest"]
        rate = found["images_per_second"]["highest"]
        assert rate == pytest.approx(4 / step["lowest"])
        hours = found["schedule_hours"]
        assert hours["training"] == pytest.approx(
            50000 * found["mean_step_seconds"]["median"] / 3600
        )
        parts = ("training", "evaluation", "checkpoints")
        assert hours["whole"] == pytest.approx(sum(hours[part] for part in parts))
    # 100 evaluations: of twice the validation patches, and of all
    for name, patches in (("ours", 2 * 2571), ("plain", 2571 + 10285)):
        rate = report[name]["evaluated_per_second"]
        low, high = sorted(100 * patches / 3600 / rate[end] for end in ("lowest", "highest"))
        assert low <= report[name]["schedule_hours"]["evaluation"] <= high

    phases = report["phases"]
    mean = report["ours"]["mean_step_seconds"]
    assert sum(phases.values()) == pytest.approx((mean["lowest"] + mean["highest"]) / 2)
    assert all(phases[name] > 0 for name in ("pseudo-labels", "forward", "backward", "optimizer"))

    sizes = [(row["batch_size"], row["image_size"]) for row in report["growth"]]
    assert sizes == [(2, 32), (2, 48)]  # the first is in both lists
    arithmetic = report["arithmetic"]
    assert arithmetic["utilisation"] == pytest.approx(arithmetic["tflops"] / 2)
    assert report["environment"]["packages"]["torch"]
    assert report["options"]["measuring"]["repetitions"] == 2

    text = capsys.readouterr().out
    for part in ("whole schedule, hours", "pseudo-labels", "2 + 2 x 48", "utilisation"):
        assert part in text


def test_it_needs_no_data_and_the_plain_loop_can_be_left_out(run, capsys):
    status, report = run("--no-plain", "--no-growth", "--repetitions=1")
    assert status == 0
    assert report["plain"] is None
    assert report["growth"] == []
    assert report["arithmetic"]["utilisation"] is None
    assert "whole schedule, hours" in capsys.readouterr().out
    options = parse(Options, ["--config=benchmark.json", "--seed=3"])
    assert (options.machine.seed, options.measuring.steps, options.data.data_root) == (3, 2, None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps=0"], "--steps 0 is not at least 1"),
        (["--repetitions=0"], "--repetitions 0 is not at least 1"),
        (["--warmup-steps=-1"], "--warmup-steps -1"),
        (["--image-sizes", "40"], "--image-sizes 40 is not a positive multiple of 16"),
        (["--batch-sizes", "1"], "--batch-sizes 1 is not at least 2"),
        (["--peak-tflops=0"], "--peak-tflops 0.0 is not positive"),
        (["--output=nowhere/b.json"], "nowhere"),
        (["--data-root=nowhere"], "--data-root nowhere is not a folder"),
        (["--device=quantum"], "--device quantum cannot be used"),
        (["--num-steps=10"], "--warmup-iters 1000 is not between 0 and --num-steps 10"),
        (["--batch-size=1000"], "--batch-size 1000 is larger than the labeled pool"),
    ],
)
def test_it_refuses_in_one_line(run, capsys, flags, message):
    status, report = run(*flags)
    assert status == 2
    assert report is None
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
