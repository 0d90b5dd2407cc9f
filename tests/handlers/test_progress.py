"""What the terminal shows."""

import math
from pathlib import Path

import pytest
import torch

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import Best, EvaluationReport, EvaluationResult, ProgressBar, TrainingLog


def test_the_bar_shows_the_logged_numbers(capsys):
    output = {
        name: torch.tensor(value)
        for name, value in (("loss", 1.0), ("ce", 0.285), ("dice", 0.182), ("st", 0.412))
    }
    output["st_px"] = torch.tensor(34821.0)
    trainer = create_trainer(lambda engine, batch: dict(output))
    TrainingLog(1).attach(trainer)
    ProgressBar("Training V3").attach(trainer)
    trainer.run([0, 1])
    shown = capsys.readouterr().err
    assert "Training V3: 100%" in shown
    assert "2/2" in shown
    assert "CE: 0.285 | Dice: 0.182 | ST: 0.412 | ST_px: 34821" in shown


def test_the_evaluation_block_is_that_of_the_guide(capsys):
    def step(engine, batch):
        engine.fire_event(TrainingEvents.EVALUATION_STARTED)
        scores = {
            "mIoU": 0.6712,
            "mIoU_with_background": 0.65,
            "IoU/crop": 0.6712,
            "IoU/bg": math.nan,
        }
        engine.state.evaluation = EvaluationResult(
            1, scores, {"mIoU": 0.6834}, best=Best(0.6712, 1, Path("b.pth"), 0.6453)
        )
        engine.fire_event(TrainingEvents.EVALUATED)
        return {}

    trainer = create_trainer(step)
    EvaluationReport(("bg", "crop")).attach(trainer)
    trainer.run([0])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    rule = "=" * 60
    assert lines[:3] == [rule, "Evaluating at iteration 1...", rule]
    assert "Training mIoU: 0.6834" in lines
    assert "Validation mIoU: 0.6712 (with background 0.6500)" in lines
    assert "Train/Val Gap: 0.0122" in lines
    assert "  crop  IoU 0.6712" in lines
    assert "  bg    IoU absent" in lines
    assert lines[-3:] == [
        "✓ New best validation mIoU: 0.6712 (previous: 0.6453)",
        "  Saving best model to: b.pth",
        rule,
    ]


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (Best(0.5, 2, Path("b.pth"), None), "Best validation mIoU: 0.5000 at iteration 2"),
        (Best(0.2, 1, Path("b.pth"), -math.inf), "(previous: none)"),
    ],
)
def test_what_is_said_of_the_best(capsys, best, words):
    def step(engine, batch):
        scores = {"mIoU": 0.2, "mIoU_with_background": 0.2, "IoU/bg": 0.2}
        engine.state.evaluation = EvaluationResult(1, scores, scores, best=best)
        engine.fire_event(TrainingEvents.EVALUATED)
        return {}

    trainer = create_trainer(step)
    EvaluationReport(("bg",)).attach(trainer)
    trainer.run([0])
    assert words in capsys.readouterr().out
