"""The best model by validation mIoU."""

import math
from pathlib import Path

import pytest

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import Best, BestModelSaver, EvaluationResult

PATH = Path("best_model_ema.pth")


def judge(saver, scores):
    """Runs one evaluation per score; returns the iterations that were saved."""
    saved = []
    saver.save = lambda path, facts: saved.append(facts["iteration"])
    results = []

    def step(engine, score):
        engine.state.evaluation = EvaluationResult(
            engine.state.iteration, {"mIoU": score}, {"mIoU": score}
        )
        results.append(engine.state.evaluation)
        engine.fire_event(TrainingEvents.EVALUATED)
        return {}

    trainer = create_trainer(step)
    saver.attach(trainer)
    trainer.run(scores)
    return saved, results


def test_saves_only_what_beats_all_before_and_says_so():
    saver = BestModelSaver(PATH, lambda path, facts: None)
    saved, results = judge(saver, [0.2, 0.5, 0.5, 0.4, 0.6712])
    assert saved == [1, 2, 5]
    assert (saver.score, saver.iteration) == (0.6712, 5)
    assert results[0].best == Best(0.2, 1, PATH, -math.inf)
    assert results[4].best == Best(0.6712, 5, PATH, 0.5)
    assert results[3].best == Best(0.5, 2, PATH, None)
    assert [result.best.is_new for result in results] == [True, True, False, False, True]


def test_nan_is_never_the_best_and_never_blocks():
    saver = BestModelSaver(PATH, lambda path, facts: None)
    saved, _ = judge(saver, [math.nan, 0.1, math.nan])
    assert saved == [2]
    assert saver.score == 0.1


def test_a_resumed_run_does_not_overwrite_a_better_model():
    saver = BestModelSaver(PATH, lambda path, facts: None)
    judge(saver, [0.9])
    resumed = BestModelSaver(PATH, lambda path, facts: None)
    resumed.load_state_dict(saver.state_dict())
    saved, _ = judge(resumed, [0.3])
    assert saved == []
    assert resumed.score == 0.9
    with pytest.raises(ValueError, match="iteration"):
        resumed.load_state_dict({"score": 1.0})


def test_a_failing_save_does_not_count_as_best():
    def full(path, facts):
        raise OSError("No space left on device")

    saver = BestModelSaver(PATH, full)
    trainer = create_trainer(lambda engine, batch: {})
    trainer.state.evaluation = EvaluationResult(1, {"mIoU": 0.5}, {"mIoU": 0.5})
    with pytest.raises(OSError, match="No space"):
        saver.judge(trainer)
    assert saver.score == -math.inf
