"""When evaluations happen and what they see."""

import math

import pytest
import torch
from ignite.engine import Engine, Events

from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EMAUpdater, Evaluation, EvaluationResult, validation_score
from ignite_salak.metrics import ClassIoU


def evaluated_at(total, every, start=0):
    seen = []
    evaluator = Engine(lambda engine, batch: None)

    scores = ClassIoU(("background", "a"))

    def set_scores(engine):
        scores.result = {"mIoU": engine.state.batch}
        scores.total = torch.full((2, 2), round(100 * engine.state.batch))

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, set_scores)
    trainer = create_trainer(lambda engine, batch: {})
    evaluation = Evaluation(evaluator, scores, [0.25], [0.75], every=every)
    evaluation.attach(trainer)
    trainer.add_event_handler(
        TrainingEvents.EVALUATED, lambda engine: seen.append(engine.state.evaluation)
    )
    trainer.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    trainer.run(range(total), max_epochs=1, epoch_length=total)
    return seen


def test_a_bad_interval_is_refused():
    with pytest.raises(ValueError, match="--eval-every 0"):
        Evaluation(Engine(lambda e, b: None), ClassIoU(("a", "b")), [], [], every=0)


def test_every_n_iterations_and_after_the_last():
    assert [result.iteration for result in evaluated_at(10, 4)] == [4, 8, 10]
    assert [result.iteration for result in evaluated_at(10, 5)] == [5, 10]
    assert [result.iteration for result in evaluated_at(10, 4, start=7)] == [8, 10]


def test_gap_is_training_minus_validation():
    result = evaluated_at(1, 1)[0]
    assert result.validation["mIoU"] == 0.25
    assert result.training["mIoU"] == 0.75
    assert result.gap == 0.5
    assert result.confusion.tolist() == [[25, 25], [25, 25]]


def test_judges_the_averaged_model_and_disturbs_neither_weights_nor_training_mode():
    class Constant(torch.nn.Module):
        """Predicts the class that its only parameter says, whatever the image."""

        def __init__(self):
            super().__init__()
            self.answer = torch.nn.Parameter(torch.zeros(3))

        def forward(self, images):
            shape = (1, len(images), 3, *images.shape[-2:])
            return self.answer.view(1, 1, 3, 1, 1).expand(shape)

    student = Constant()
    ema = EMAUpdater(student)
    student.answer.data[2] = 1.0
    ema.update()
    student.answer.data = torch.tensor([0.0, 1.0, 0.0])
    scores = ClassIoU(("background", "a", "b"))
    batch = {
        "image": torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
        "mask": torch.full((1, 2, 2), 2, dtype=torch.uint8),
    }
    student.train()
    evaluator = create_evaluator(ema.model, {"scores": scores})
    evaluation = Evaluation(evaluator, scores, [batch], [batch], every=1)
    trainer = create_trainer(lambda engine, batch: {})
    evaluation.attach(trainer)
    trainer.run([0])
    assert evaluation.last.validation["mIoU"] == 1.0
    assert math.isnan(evaluation.last.validation["IoU/a"])
    assert evaluation.last.confusion[2, 2] == 4
    assert evaluation.last.confusion.sum() == 4
    assert student.training
    assert student.answer.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(("miou", "score"), [(0.5, 0.5), (math.nan, -math.inf)])
def test_nan_is_the_worst_score(miou, score):
    trainer = create_trainer(lambda engine, batch: {})
    trainer.state.evaluation = EvaluationResult(1, {"mIoU": miou}, {})
    assert validation_score(trainer) == score
