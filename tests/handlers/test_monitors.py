"""Scalars, read back from what the services wrote."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import (
    EvaluationResult,
    ScalarMonitor,
    TensorBoardMonitor,
    TrainingLog,
    WandBMonitor,
)


def run(folder, start=0, total=4, monitor=None):
    def step(engine, batch):
        return {"loss": torch.tensor(float(engine.state.iteration))}

    def evaluate(engine):
        scores = {"mIoU": 0.5, "IoU/absent": math.nan}
        engine.state.evaluation = EvaluationResult(engine.state.iteration, scores, {"mIoU": 0.75})
        engine.fire_event(TrainingEvents.EVALUATED)

    trainer = create_trainer(step)
    TrainingLog(1).attach(trainer)
    (monitor or TensorBoardMonitor(folder)).attach(trainer)
    trainer.add_event_handler(TrainingEvents.LOGGED, evaluate)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    trainer.run(range(total), max_epochs=1, epoch_length=total)
    return trainer


def scalars(folder, tag):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)], events.Tags()["scalars"]


def test_losses_and_scores_by_iteration(tmp_path):
    run(tmp_path)
    values, tags = scalars(tmp_path, "train/loss")
    assert values == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert scalars(tmp_path, "validation/mIoU")[0][-1] == (4, 0.5)
    assert scalars(tmp_path, "validation/gap")[0][-1] == (4, 0.25)
    assert "validation/IoU/absent" not in tags


def test_a_resumed_run_replaces_what_came_after(tmp_path):
    run(tmp_path)
    run(tmp_path, start=2, total=5)
    assert [step for step, _ in scalars(tmp_path, "train/loss")[0]] == [1, 2, 3, 4, 5]


class FullDisk(ScalarMonitor):
    """Opens, then fails at the second write."""

    writes = 0

    def open(self, iteration):
        return self

    def write(self, logger, values, iteration):
        self.writes += 1
        if self.writes == 2:
            raise OSError("No space left on device")

    def close(self):
        raise AssertionError("closed although it failed")


def test_a_monitor_that_fails_costs_one_warning_and_never_the_training(tmp_path, caplog):
    monitor = FullDisk()
    trainer = run(tmp_path, monitor=monitor)
    assert trainer.state.iteration == 4
    assert monitor.writes == 2
    assert [record.message for record in caplog.records] == [
        "FullDisk reports no more: No space left on device"
    ]


def test_wandb_offline_writes_a_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer = run(tmp_path, monitor=WandBMonitor("salak", {"seed": 0}, tmp_path))
    assert trainer.state.iteration == 4
    [written] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"train/loss" in content
    assert b"validation/mIoU" in content


def test_wandb_without_key_and_not_offline_is_one_warning_and_no_prompt(
    tmp_path, monkeypatch, caplog
):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    trainer = run(tmp_path, monitor=WandBMonitor("salak", {}, tmp_path))
    assert trainer.state.iteration == 4
    assert len(caplog.records) == 1
    assert "wandb login" in caplog.text
