"""Phases by a clock that stands still unless told otherwise."""

import pytest
import torch
from ignite.engine import Events

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import PhaseTimer
from ignite_salak.handlers import phase_timer as module


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


def make_trainer(clock, timer, parts=1, pseudo=True):
    """Every stage takes another power of two, so that no sum can stand for another."""

    def step(engine, batch):
        if pseudo:
            clock.pass_(1)
            engine.fire_event(TrainingEvents.PSEUDO_LABELED)
        clock.pass_(2)
        engine.fire_event(TrainingEvents.VIEWS_READY)
        for _ in range(parts):
            clock.pass_(4)
            engine.fire_event(TrainingEvents.LOSS_COMPUTED)
            clock.pass_(8)
        engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        clock.pass_(16)
        engine.fire_event(TrainingEvents.OPTIMIZER_STEPPED)
        clock.pass_(32)
        return {"loss": torch.zeros(())}

    trainer = create_trainer(step)
    timer.attach_first(trainer)
    trainer.add_event_handler(TrainingEvents.BACKWARD_COMPLETED, lambda: clock.pass_(64))
    trainer.add_event_handler(TrainingEvents.OPTIMIZER_STEPPED, lambda: clock.pass_(128))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: clock.pass_(256))
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda: clock.pass_(512))
    return trainer


def slow_batches(clock, count):
    for number in range(count):
        clock.pass_(1024)
        yield number


EXPECTED = {
    "data": 1024.0,
    "pseudo_labels": 1.0,
    "augmentation": 2.0,
    "forward": 4.0,
    "backward": 8.0,
    "optimizer": 16.0,
    "engine": 32.0,
    "handlers/backward_completed": 64.0,
    "handlers/optimizer_stepped": 128.0,
    "handlers/iteration_completed": 256.0,
    "handlers/iteration_started": 512.0,
}


def spent(phases):
    return {phase: seconds for phase, seconds in phases.items() if seconds}


def test_every_phase_is_told_from_the_others(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer)
    timer.attach_last(trainer)
    trainer.run(slow_batches(clock, 3), max_epochs=1, epoch_length=3)
    iterations = timer.iterations()
    assert [spent(phases) for phases in iterations] == [EXPECTED] * 3


def test_the_phases_of_all_iterations_add_up_to_the_time_of_the_run(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: clock.pass_(7))
    timer.attach_last(trainer)
    before = clock.now
    trainer.run(slow_batches(clock, 4), max_epochs=2, epoch_length=2)
    found = sum(sum(phases.values()) for phases in timer.iterations())
    assert found == clock.now - before == 4 * sum(EXPECTED.values()) + 2 * 7


def test_an_iteration_without_self_training_has_no_such_phase(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer, pseudo=False)
    timer.attach_last(trainer)
    trainer.run(slow_batches(clock, 1), max_epochs=1, epoch_length=1)
    [phases] = timer.iterations()
    assert "pseudo_labels" not in phases
    assert phases["augmentation"] == 2.0


def test_parts_of_an_accumulated_batch_are_summed(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer, parts=3)
    timer.attach_last(trainer)
    trainer.run(slow_batches(clock, 1), max_epochs=1, epoch_length=1)
    [phases] = timer.iterations()
    assert phases["forward"] == 3 * 4.0 + 2 * 8.0
    assert phases["backward"] == 8.0


def test_an_evaluation_is_not_what_handlers_take(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer)

    def evaluate(engine):
        engine.fire_event(TrainingEvents.EVALUATION_STARTED)
        clock.pass_(5000)
        engine.fire_event(TrainingEvents.EVALUATED)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
    trainer.add_event_handler(TrainingEvents.EVALUATED, lambda: clock.pass_(3))
    timer.attach_last(trainer)
    trainer.run(slow_batches(clock, 1), max_epochs=1, epoch_length=1)
    [phases] = timer.iterations()
    assert spent(phases) == {**EXPECTED, "evaluation": 5000.0, "handlers/evaluated": 3.0}


def test_time_between_two_runs_belongs_to_none(clock):
    timer = PhaseTimer()
    trainer = make_trainer(clock, timer)
    timer.attach_last(trainer)
    for _ in range(2):
        trainer.run(slow_batches(clock, 1), max_epochs=1, epoch_length=1)
        clock.pass_(1e6)
    assert [spent(phases) for phases in timer.iterations()] == [EXPECTED] * 2


def test_on_cuda_nothing_waits_before_the_times_are_read(clock, monkeypatch):
    waited = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            assert stream == "the stream"
            self.time = clock.now

        def elapsed_time(self, other):
            assert waited, "read before the device was done"
            return 1000.0 * (other.time - self.time)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the stream")
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    timer = PhaseTimer("cuda")
    trainer = make_trainer(clock, timer)
    timer.attach_last(trainer)
    trainer.run(slow_batches(clock, 2), max_epochs=1, epoch_length=2)
    assert waited == []
    assert [spent(phases) for phases in timer.iterations()] == [EXPECTED] * 2
    assert waited == [torch.device("cuda")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_gpu_the_work_is_seen_where_it_is_done():
    def step(engine, batch):
        engine.fire_event(TrainingEvents.VIEWS_READY)
        torch.cuda._sleep(100_000_000)  # cycles: some 50 ms
        engine.fire_event(TrainingEvents.LOSS_COMPUTED)
        return {"loss": torch.zeros(())}

    timer, trainer = PhaseTimer("cuda"), create_trainer(step)
    timer.attach_first(trainer)
    timer.attach_last(trainer)
    trainer.run(range(3), max_epochs=1, epoch_length=3)
    for phases in timer.iterations():
        assert phases["forward"] > 0.9 * sum(phases.values())
