"""Means over the iterations between two logs."""

import pytest
import torch

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import TrainingLog


def run(outputs, every):
    logged = []
    trainer = create_trainer(lambda engine, batch: dict(batch))
    TrainingLog(every).attach(trainer)
    trainer.add_event_handler(
        TrainingEvents.LOGGED,
        lambda engine: logged.append((engine.state.iteration, dict(engine.state.metrics))),
    )
    trainer.run(outputs, max_epochs=1, epoch_length=len(outputs))
    return logged


def test_a_bad_interval_is_refused():
    with pytest.raises(ValueError, match="--log-every 0"):
        TrainingLog(0)


def test_tensors_are_averaged_numbers_are_the_last():
    outputs = [{"loss": torch.tensor(float(i)), "lr": i / 10} for i in range(1, 6)]
    logged = run(outputs, every=2)
    assert [iteration for iteration, _ in logged] == [2, 4, 5]
    assert [values["loss"] for _, values in logged] == [1.5, 3.5, 5.0]
    assert [values["lr"] for _, values in logged] == [0.2, 0.4, 0.5]
    assert all(values["seconds_per_iteration"] > 0 for _, values in logged)


def test_a_name_that_appears_later_is_averaged_over_its_own_iterations():
    first = {"loss": torch.tensor(1.0)}
    second = {"loss": torch.tensor(2.0), "disagreement": torch.tensor(0.5)}
    third = {"loss": torch.tensor(3.0), "disagreement": torch.tensor(0.7)}
    [(_, values)] = run([first, second, third], every=3)
    assert values["loss"] == pytest.approx(2.0)
    assert values["disagreement"] == pytest.approx(0.6)


def test_vectors_are_left_alone():
    [(_, values)] = run([{"loss": torch.tensor(1.0), "st_px_per_class": torch.ones(3)}], every=1)
    assert "st_px_per_class" not in values
