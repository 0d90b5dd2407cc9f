"""Times of the benchmark, against numbers by hand."""

import math
import time

import pytest

from experiments.measurements import (
    Contender,
    Schedule,
    hardware,
    loading_rate,
    seconds_of,
    shares,
    spread,
    whole,
)


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
