"""history.csv."""

import csv

import torch
from ignite.engine import Events

from ignite_salak import files
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult, History, TrainingLog


def run(path, start=0, total=6):
    def step(engine, batch):
        return {"loss": torch.tensor(float(engine.state.iteration))}

    def evaluate(engine):
        if engine.state.iteration % 3 == 0:
            engine.state.evaluation = EvaluationResult(
                engine.state.iteration, {"mIoU": 0.25}, {"mIoU": 0.5}
            )
            engine.fire_event(TrainingEvents.EVALUATED)

    trainer = create_trainer(step)
    TrainingLog(2).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, evaluate)
    History(path).attach(trainer)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    trainer.run(range(total), max_epochs=1, epoch_length=total)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_iteration_with_what_is_known(tmp_path):
    run(tmp_path / "history.csv")
    rows = read(tmp_path / "history.csv")
    assert [row["iteration"] for row in rows] == ["2", "3", "4", "6"]
    assert [row["loss"] for row in rows] == ["1.5", "", "3.5", "5.5"]
    assert [row["validation/mIoU"] for row in rows] == ["", "0.25", "", "0.25"]
    assert rows[1]["gap"] == "0.25"
    assert rows[1]["training/mIoU"] == "0.5"


def test_a_resumed_run_drops_later_rows_and_goes_on(tmp_path):
    path = tmp_path / "history.csv"
    run(path)
    run(path, start=4, total=8)
    assert [row["iteration"] for row in read(path)] == ["2", "3", "4", "6", "8"]


def test_a_new_run_starts_a_new_history(tmp_path):
    path = tmp_path / "history.csv"
    run(path)
    run(path, total=2)
    assert [row["iteration"] for row in read(path)] == ["2"]


def test_a_file_held_by_another_program_does_not_stop_the_run(tmp_path, monkeypatch, caplog):
    path = tmp_path / "history.csv"
    rename, held = files.Path.replace, []

    def replace(self, target):
        held.append(target)
        if len(held) <= 10:
            raise PermissionError(13, "The process cannot access the file")
        return rename(self, target)

    monkeypatch.setattr(files.Path, "replace", replace)
    monkeypatch.setattr(files, "_RENAME_PAUSE", 0.0)
    run(path)
    assert [row["iteration"] for row in read(path)] == ["2", "3", "4", "6"]
    assert len(caplog.records) == 1
    assert "open in another program" in caplog.text
