"""A run that trains nothing, for what reports on runs."""

import logging
import math
from contextlib import closing

import numpy as np
import pytest
import torch

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import Best, EvaluationResult, TrainingLog

PICTURE = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)


def train(folder, monitor, start=0, total=4, stop_at=None):
    """Trains nothing; the best score is of iteration 2, every evaluation has a 12 x 20 picture."""
    folder.mkdir(exist_ok=True)
    model = folder / "best_model_ema.pth"

    def step(engine, batch):
        return {"loss": torch.tensor(float(engine.state.iteration))}

    def evaluate(engine):
        iteration = engine.state.iteration
        scores = {"mIoU": 0.5, "IoU/road": 0.25, "IoU/absent": math.nan}
        result = EvaluationResult(iteration, scores, {"mIoU": 0.75})
        result.best = Best(0.6, min(iteration, 2), model, 0.1 if iteration == 2 else None)
        result.pictures["validation"] = PICTURE
        if iteration == 2:
            torch.save({"weight": torch.ones(3)}, model)
        engine.state.evaluation = result
        engine.fire_event(TrainingEvents.EVALUATED)
        if iteration == stop_at:
            engine.terminate()

    trainer = create_trainer(step)
    TrainingLog(1).attach(trainer)
    monitor.attach(trainer)
    trainer.add_event_handler(TrainingEvents.LOGGED, evaluate)
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    with closing(monitor):
        trainer.run(range(total), max_epochs=1, epoch_length=total)
    return trainer


@pytest.fixture
def run():
    """Returns ``train``."""
    return train


@pytest.fixture
def warnings(caplog):
    """Returns a function that lists the warnings so far."""
    return lambda: [r.message for r in caplog.records if r.levelno >= logging.WARNING]
