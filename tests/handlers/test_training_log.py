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


def pools(*sizes):
    """A batch of the training stream: pools of images, by name."""
    names = ("labeled", "unlabeled")[: len(sizes)]
    images = {n: {"image": torch.zeros(s, 3, 4, 4)} for n, s in zip(names, sizes, strict=True)}
    return {**images, "labeled": {**images["labeled"], "mask": torch.zeros(sizes[0], 4, 4)}}


def log_of(batches, every, clock, monkeypatch, device="cpu"):
    """Logs while every step takes ``clock`` seconds, by a clock of its own."""
    now = [0.0]
    monkeypatch.setattr("ignite_salak.handlers.training_log.time.perf_counter", lambda: now[0])

    def step(engine, batch):
        now[0] += clock
        return {"loss": torch.tensor(0.0)}

    logged = []
    trainer = create_trainer(step)
    TrainingLog(every, device).attach(trainer)
    trainer.add_event_handler(
        TrainingEvents.LOGGED, lambda engine: logged.append(dict(engine.state.metrics))
    )
    trainer.run(batches, max_epochs=1, epoch_length=len(batches))
    return logged


def test_images_per_second_counts_all_pools(monkeypatch):
    batches = [pools(2, 4), pools(2, 4), pools(3), pools(2, 4)]
    first, second = log_of(batches, 2, 0.5, monkeypatch)
    assert first["images_per_second"] == pytest.approx(12 / 1.0)
    assert second["images_per_second"] == pytest.approx(9 / 1.0)


@pytest.mark.parametrize("batch", [0, [1, 2], {"loss": torch.tensor(1.0)}, {"labeled": {}}])
def test_batches_that_are_no_pools_have_no_images_per_second(monkeypatch, batch):
    [values] = log_of([batch], 1, 0.5, monkeypatch)
    assert "images_per_second" not in values
    assert "gpu_memory_gib" not in values


def test_gpu_memory_is_the_peak_since_the_last_log(monkeypatch):
    peaks, resets = iter([3 * 2**30, 2**29]), []
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    logged = log_of([pools(1)] * 4, 2, 0.5, monkeypatch, "cuda:1")
    assert [values["gpu_memory_gib"] for values in logged] == [3.0, 0.5]
    assert resets == [torch.device("cuda:1")] * 3  # at the start, and after every log


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_memory_of_a_real_device():
    def step(engine, batch):
        size = {1: 2**28, 2: 2**20}[engine.state.iteration]
        return {"loss": torch.zeros(size, dtype=torch.uint8, device="cuda").float().sum() * 0}

    torch.zeros(1, device="cuda")  # as a model is there before the run
    logged = []
    trainer = create_trainer(step)
    TrainingLog(1, "cuda").attach(trainer)
    trainer.add_event_handler(
        TrainingEvents.LOGGED, lambda engine: logged.append(engine.state.metrics["gpu_memory_gib"])
    )
    trainer.run([0, 1], max_epochs=1, epoch_length=2)
    assert logged[0] > 1.0  # 0.25 GiB of bytes and 1 GiB of their floats
    assert logged[1] < 0.5
