"""What the benchmark measures is V3 with its handlers, from the first batch on."""

import csv
import time

import pytest
import torch

from experiments.data import load_data
from experiments.measured_run import MeasuredRun
from experiments.measurements import whole
from experiments.options import DataOptions, RunOptions, ScheduleOptions
from ignite_salak.augment import RandomGeometry
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps.views import Views

CPU = torch.device("cpu")


@pytest.fixture
def data(shared_plantation):
    options = DataOptions(data_root=shared_plantation.root)
    return load_data(options, RunOptions(num_workers=0), batch_size=2, device=CPU)


@pytest.fixture
def make(data, tmp_path):
    """Returns a function that makes a run with a schedule."""

    def build(**schedule):
        torch.manual_seed(0)
        loss = CombinedLoss({"ce": 1.0})
        return MeasuredRun(
            ModelSpec(data.classes.num_classes, "resnet18", 1, 16, 8).build(),
            loss,
            loss,
            thresholds=[0.0] * data.classes.num_classes,
            views=Views(RandomGeometry(), (32, 48), 0),
            schedule=ScheduleOptions(batch_size=2, **schedule),
            names=data.classes.names,
            folder=tmp_path,
            device=CPU,
            precision="fp32",
        )

    return build


def test_the_phases_fill_the_time_of_the_training(data, make):
    run = make()
    started = time.perf_counter()
    iterations = run.train(data.stream, 3)
    elapsed = time.perf_counter() - started
    assert len(iterations) == 3
    assert 0 < sum(map(whole, iterations)) < elapsed
    for phases in iterations:
        assert {"data", "pseudo_labels", "augmentation", "forward", "backward"} <= set(phases)
        assert phases["handlers/optimizer_stepped"] > 0


def test_all_handlers_are_there_and_log(data, make, tmp_path):
    make().train(data.stream, 2)
    with (tmp_path / "history.csv").open(encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row["iteration"] == "2"
    assert {"grad_norm", "ema_decay", "st_px", "seconds_per_iteration"} <= set(row)
    assert any(name.startswith("lr/") for name in row)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_every_training_begins_with_the_first_batch(data, make, monkeypatch):
    run, seen = make(), []
    draw = Views.draw
    monkeypatch.setattr(
        Views, "draw", lambda views, *given: seen.append(given[1:]) or draw(views, *given)
    )
    for train in (run.train, run.train_bare):
        train(data.stream, 2)
    pools = [(i, pool) for i in (1, 2) for pool in ("labeled", "unlabeled")]
    assert seen == 2 * pools


def test_noise_of_any_size_is_trained_on(make):
    row = make().train_on_noise(4, 48, steps=2)
    assert (row["batch_size"], row["image_size"]) == (4, 48)
    assert row["images_per_second"] == pytest.approx(8 / row["step_seconds"]["median"])


def test_it_evaluates_the_averaged_model_and_saves_what_a_run_saves(data, make, tmp_path):
    run = make()
    assert run.evaluate(data.validation) > 0
    assert run.scores.total.sum() == len(data.split.validation) * 32 * 32
    run.save(tmp_path / "ours.pth")
    assert set(torch.load(tmp_path / "ours.pth", weights_only=True)) == {
        "model",
        "ema",
        "optimizer",
    }


def test_a_schedule_that_cannot_be_is_refused_before_anything_is_measured(make):
    with pytest.raises(ValueError, match="--warmup-iters 1000"):
        make(num_steps=10)
