"""TensorBoard scalars, read back from the event files."""

import math

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EvaluationResult, TensorBoardMonitor, TrainingLog


def run(folder, start=0, total=4):
    def step(engine, batch):
        return {"loss": torch.tensor(float(engine.state.iteration))}

    def evaluate(engine):
        scores = {"mIoU": 0.5, "IoU/absent": math.nan}
        engine.state.evaluation = EvaluationResult(engine.state.iteration, scores, {"mIoU": 0.75})
        engine.fire_event(TrainingEvents.EVALUATED)

    trainer = create_trainer(step)
    TrainingLog(1).attach(trainer)
    TensorBoardMonitor(folder).attach(trainer)
    trainer.add_event_handler(TrainingEvents.LOGGED, evaluate)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    trainer.run(range(total), max_epochs=1, epoch_length=total)


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
