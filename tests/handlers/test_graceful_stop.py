"""Signals end a run between two iterations."""

import os
import signal
import threading

import pytest
from ignite.engine import Events

from ignite_salak.engines import create_trainer
from ignite_salak.handlers import GracefulStop


@pytest.mark.skipif(os.name == "nt", reason="os.kill on Windows ends the process at once")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_iteration_is_finished_then_the_run_ends(number):
    completed, fired = [], []

    def step(engine, batch):
        if engine.state.iteration == 3:
            os.kill(os.getpid(), number)
        completed.append(engine.state.iteration)
        return {}

    before = signal.getsignal(number)
    trainer = create_trainer(step)
    stop = GracefulStop()
    stop.attach(trainer)
    trainer.add_event_handler(Events.TERMINATE, lambda: fired.append("terminate"))
    trainer.add_event_handler(Events.COMPLETED, lambda: fired.append("completed"))
    trainer.run(range(10), max_epochs=1, epoch_length=10)
    assert completed == [1, 2, 3]
    assert trainer.state.iteration == 3
    assert stop.signal_name == number.name
    assert fired == ["terminate"]
    assert signal.getsignal(number) is before


@pytest.fixture
def heard():
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="os.kill on Windows ends the process at once")
def test_a_second_ctrl_c_acts_at_once(heard):
    stop = GracefulStop()

    def step(engine, batch):
        os.kill(os.getpid(), signal.SIGINT)
        while stop.signal_name is None:
            pass  # Python 3.10 delivers a signal later than 3.11
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    trainer = create_trainer(step)
    stop.attach(trainer)
    with pytest.raises(KeyboardInterrupt):
        trainer.run([0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_without_signals_leaves_the_handlers_as_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    trainer = create_trainer(lambda engine, batch: {})
    stop = GracefulStop()
    stop.attach(trainer)
    trainer.run([0, 1])
    assert stop.signal_name is None
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_engine_in_another_thread_runs_without_listening():
    trainer = create_trainer(lambda engine, batch: {})
    GracefulStop().attach(trainer)
    thread = threading.Thread(target=trainer.run, args=([0, 1],))
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join(timeout=30)
    assert trainer.state.iteration == 2
    assert signal.getsignal(signal.SIGINT) is before
