"""Numbers of the benchmark, against numbers by hand."""

import math
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.measurements import (
    Contender,
    PeakMemory,
    Schedule,
    hardware,
    loading_rate,
    peak_tflops_of,
    seconds_of,
    shares,
    spread,
    step_flops,
    utilisation,
    whole,
)
from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views

CPU = torch.device("cpu")


def test_a_spread_is_the_median_between_the_extremes():
    assert spread([3.0, 1.0, 7.0]) == {"median": 3.0, "lowest": 1.0, "highest": 7.0}


def test_shares_tell_what_learns_from_what_watches():
    first = {
        "data": 1.0,
        "pseudo_labels": 2.0,
        "forward": 4.0,
        "engine": 8.0,
        "handlers/backward_completed": 16.0,
        "handlers/optimizer_stepped": 32.0,
        "handlers/iteration_completed": 64.0,
        "handlers/iteration_started": 128.0,
    }
    second = {name: 3 * value for name, value in first.items() if name != "pseudo_labels"}
    found = shares([first, second])
    assert found == {
        "data": 2.0,
        "pseudo-labels": 1.0,
        "augmentation": 0.0,
        "forward": 8.0,
        "backward": 0.0,
        "optimizer": 0.0,
        "clipping and averaging": 96.0,
        "handlers": 384.0,
        "engine": 16.0,
    }
    assert sum(found.values()) == (whole(first) + whole(second)) / 2


def test_the_flops_are_those_of_a_real_step():
    spec = ModelSpec(4, "resnet18", 2, 16, 8)
    torch.manual_seed(0)
    model = spec.build()
    step = SelfTrainingStep(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        CombinedLoss({"ce": 1.0}),
        CombinedLoss({"ce": 1.0}),
        thresholds=[0.0] * 4,
        views=Views(RandomGeometry(), (48, 48), 0),
        start_iteration=1,
    )
    image = torch.randint(1, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mask = torch.randint(0, 4, (2, 32, 32), dtype=torch.uint8)
    batch = {"labeled": {"image": image, "mask": mask}, "unlabeled": {"image": image}}
    with FlopCounterMode(display=False) as counter:
        create_trainer(step).run([batch])
    real = counter.get_total_flops()
    # The step also multiplies four 2 x 2 matrices, of the warps, by a vector.
    assert step_flops(spec, batch_size=2, view=48, patch=32) == real - 4 * 8 > 0


def test_flops_grow_with_the_batch():
    spec = ModelSpec(3, "resnet18", 1, 16, 8)
    assert step_flops(spec, 4, 32, 32) == 2 * step_flops(spec, 2, 32, 32)


def test_utilisation_is_work_over_peak():
    found = utilisation(flops=3e12, seconds=0.02, peak_tflops=600.0)
    assert found["tflop_per_step"] == 3.0
    assert found["tflops"] == pytest.approx(150.0)
    assert found["utilisation"] == pytest.approx(0.25)
    assert utilisation(3e12, 0.02, None)["utilisation"] is None


def test_only_an_h200_in_bf16_has_a_known_peak(monkeypatch):
    assert peak_tflops_of(CPU, "bf16") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_tflops_of(torch.device("cuda"), "bf16") == 989.0
    assert peak_tflops_of(torch.device("cuda"), "fp32") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA RTX 4060")
    assert peak_tflops_of(torch.device("cuda"), "bf16") is None


def test_a_schedule_is_steps_and_evaluations_and_checkpoints():
    schedule = Schedule(steps=7200, evaluations=10, patches=3600, saves=360)
    found = schedule.hours(step=0.5, patch=0.1, save=2.0)
    assert found == {"training": 1.0, "evaluation": 1.0, "checkpoints": 0.2, "whole": 2.2}


def test_a_report_projects_from_the_mean_step_and_the_median_repetition():
    found = Contender(
        steps=[[1.0, 1.0, 4.0], [2.0, 2.0, 2.0], [9.0, 9.0, 9.0]],
        evaluations=[0.1, 0.5, 0.2],
        saves=[1.0, 1.0, 1.0],
    ).report(images=16, schedule=Schedule(3600, 1, 3600, 0))
    assert found["step_seconds"] == {"median": 2.0, "lowest": 1.0, "highest": 9.0}
    assert found["mean_step_seconds"] == {"median": 2.0, "lowest": 2.0, "highest": 9.0}
    assert found["iterations_per_second"]["median"] == 0.5
    assert found["images_per_second"] == {"median": 8.0, "lowest": 16 / 9, "highest": 16.0}
    assert found["evaluated_per_second"]["median"] == 5.0
    assert found["schedule_hours"] == {
        "training": 2.0,
        "evaluation": pytest.approx(0.2),
        "checkpoints": 0.0,
        "whole": pytest.approx(2.2),
    }


def test_peak_memory_sees_what_was_freed_again():
    size = 256 * 2**20
    with PeakMemory(CPU) as memory:
        block = torch.ones(size // 4)
        deadline = time.perf_counter() + 10
        while memory.peak < memory.before + size // 2 and time.perf_counter() < deadline:
            block.add_(1)
        del block
    found = memory.in_gib()
    assert 0.1 < found["own"] < 0.5
    assert found["own"] == pytest.approx(found["peak"] - found["before"])
    assert found["reserved"] is None
    assert not memory._watcher.is_alive()


def test_peak_memory_ends_its_watcher_after_an_error():
    memory = PeakMemory(CPU)
    with pytest.raises(KeyError), memory:
        raise KeyError
    assert not memory._watcher.is_alive()


class Stream:
    """Counts what is taken of it."""

    batch_size = 4
    pools = ("labeled", "unlabeled")
    taken = 0

    def __iter__(self):
        while True:
            self.taken += 1
            yield {}


def test_loading_is_timed_once_what_was_read_ahead_is_gone(monkeypatch):
    stream, timed = Stream(), []

    def watched(work):
        timed.append(stream.taken)
        work()
        timed.append(stream.taken)
        return 2.0

    monkeypatch.setattr("experiments.measurements.seconds_of", watched)
    rate = loading_rate(stream, 10, ahead=6)
    assert timed == [7, 7 + 16]
    assert rate == 16 * 8 / 2.0


def test_seconds_are_those_of_the_work(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", iter([10.0, 12.5]).__next__)
    done = []
    assert seconds_of(lambda: done.append(1)) == 2.5
    assert done == [1]


def test_the_hardware_has_a_size():
    found = hardware()
    assert found["threads"] == 1
    assert math.isfinite(found["memory_gib"]) and found["memory_gib"] > 0
