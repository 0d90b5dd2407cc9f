"""What all monitors do, whatever the service: order, end, and failures that cost one warning."""

import threading
from contextlib import closing

import ignite.distributed as idist
import pytest

from ignite_salak.engines import create_trainer
from ignite_salak.handlers import Monitor


class Recorder(Monitor):
    """Keeps the calls; raises or hangs in the one that ``fail`` names."""

    def __init__(self, fail=None, error=None):
        super().__init__({})
        self.calls = []
        self.fail = fail
        self.error = error

    def _call(self, name, *facts):
        self.calls.append((name, *facts))
        if name == self.fail:
            if isinstance(self.error, BaseException):
                raise self.error
            self.error.wait()

    def open(self, iteration):
        self._call("open", iteration)
        return self

    def write(self, logger, values, iteration):
        self._call("write", iteration)

    def write_pictures(self, logger, pictures, iteration):
        self._call("pictures", iteration)

    def write_best(self, logger, best, iteration):
        self._call("best", iteration)

    def save_model(self, logger, best):
        self._call("model", best.iteration)


class Closing(Recorder):
    """The logger is another object, so that its close is told from the monitor's."""

    def open(self, iteration):
        super().open(iteration)
        return self.Logger(self)

    class Logger:
        def __init__(self, monitor):
            self.monitor = monitor

        def close(self):
            self.monitor._call("close")


def names(monitor):
    return [call[0] for call in monitor.calls]


def test_the_order_of_reports_and_one_model_at_the_end(run, tmp_path):
    monitor = Closing()
    run(tmp_path, monitor, total=3)
    each = ["write", "write", "pictures", "best"]
    first, second, third = ([(call, i) for call in each] for i in (1, 2, 3))
    reports = [*first, *second, *third[:-1]]  # iteration 3 is not better
    assert monitor.calls == [("open", 0), *reports, ("model", 2), ("close",)]


def test_the_model_is_handed_over_after_an_interruption(run, tmp_path):
    monitor = Closing()
    run(tmp_path, monitor, stop_at=3)
    assert monitor.calls[-3:] == [("pictures", 3), ("model", 2), ("close",)]


def test_a_run_that_raises_is_closed_by_its_context(tmp_path):
    monitor = Closing()
    trainer = create_trainer(lambda engine, batch: 1 / 0)
    monitor.attach(trainer)
    with pytest.raises(ZeroDivisionError), closing(monitor):
        trainer.run([0], max_epochs=1)
    assert names(monitor) == ["open", "close"]


def test_without_a_best_model_none_is_handed_over(run, tmp_path):
    monitor = Closing()
    run(tmp_path, monitor, total=1)
    assert "model" not in names(monitor)
    assert names(monitor)[-1] == "close"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("No space left on device"), "No space left on device"),
        (KeyError(), "KeyError"),
        (SystemExit(2), "SystemExit 2"),
    ],
)
@pytest.mark.parametrize("fail", ["open", "write", "pictures", "best", "model", "close"])
def test_a_monitor_that_fails_costs_one_warning_and_never_the_training(
    run, tmp_path, fail, error, reason, warnings
):
    monitor = Closing(fail, error)
    trainer = run(tmp_path, monitor)
    assert trainer.state.iteration == 4
    assert warnings() == [f"Closing reports no more: {reason}"]
    assert names(monitor).count(fail) == 1
    assert names(monitor)[-1] == ("open" if fail == "open" else "close")


@pytest.mark.parametrize("fail", ["open", "write", "model"])
def test_a_service_that_hangs_is_given_up(run, tmp_path, fail, warnings):
    release = threading.Event()
    monitor = Closing(fail, release)
    monitor.limit = monitor.closing_limit = 0.1
    trainer = run(tmp_path, monitor)
    assert trainer.state.iteration == 4
    assert warnings() == ["Closing reports no more: no answer within 0.1 seconds"]
    release.set()


def test_a_service_that_opens_too_late_is_closed_again(run, tmp_path):
    closed = threading.Event()

    class Late(Closing):
        class Logger(Closing.Logger):
            def close(self):
                closed.set()

    release = threading.Event()
    monitor = Late("open", release)
    monitor.limit = 0.1
    run(tmp_path, monitor)
    assert not closed.is_set()
    release.set()
    assert closed.wait(30)
    assert names(monitor) == ["open"]


def test_only_rank_0_reports(run, tmp_path, monkeypatch):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    monitor = Closing()
    run(tmp_path, monitor)
    assert monitor.calls == []
