"""Bad signs become warnings, once, with a way out."""

import math

import pytest

from ignite_salak.engines import create_trainer
from ignite_salak.handlers import EvaluationResult, Health, SourceChange

NAMES = ("background", "water", "crop")
GOOD = {"loss": 0.5, "ce": 0.3, "dice": 0.2, "st_px": 30000.0}


def logged(iteration, **values):
    trainer = create_trainer(lambda engine, batch: {})
    trainer.state.iteration = iteration
    trainer.state.metrics = {**GOOD, **values}
    return trainer


def evaluated(iteration, gap=0.0, **iou):
    scores = {"mIoU": 0.5, **{f"IoU/{name}": iou.get(name, 0.5) for name in NAMES}}
    trainer = create_trainer(lambda engine, batch: {})
    trainer.state.evaluation = EvaluationResult(iteration, scores, {"mIoU": 0.5 + gap})
    return trainer


@pytest.mark.parametrize(
    ("engine", "sign", "words"),
    [
        (logged(2000, st_px=999.0), "st_px", "under 1,000: lower --x"),
        (logged(10000, ce=1.01), "ce", "not learning"),
        (logged(10000, dice=0.51), "dice", "segmentation"),
    ],
)
def test_training_signs(engine, sign, words, caplog):
    health = Health(NAMES, st_advice="lower --x")
    health.check_training(engine)
    health.check_training(engine)
    assert list(health.warnings) == [sign]
    assert words in health.warnings[sign]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("engine", "sign"),
    [(evaluated(2000, gap=0.11), "gap"), (evaluated(2000, water=0.0), "class 1")],
)
def test_evaluation_signs(engine, sign):
    health = Health(NAMES)
    health.check_evaluation(engine)
    assert list(health.warnings) == [sign]


@pytest.mark.parametrize(
    ("self_training", "advice", "words"),
    [
        (True, "lower --x", "its labels, or lower --x"),
        (True, "", "its labels"),
        (False, "lower --x", "its labels"),
    ],
)
def test_a_class_that_is_never_found(self_training, advice, words):
    health = Health(NAMES, self_training=self_training, st_advice=advice)
    health.check_evaluation(evaluated(2000, water=0.0))
    assert health.warnings["class 1"].endswith(words)


def test_few_st_pixels_where_there_is_nothing_to_do():
    health = Health(NAMES)
    health.check_training(logged(2000, st_px=999.0))
    assert health.warnings["st_px"].endswith("under 1,000")


@pytest.mark.parametrize("self_training", [True, False])
def test_a_falling_validation_score(self_training):
    health = Health(NAMES, self_training=self_training)
    for score in (0.40, 0.502, math.nan, 0.46):
        health.check_evaluation(scored(score))
    assert health.warnings == {}
    health.check_evaluation(scored(0.42))
    assert "fell from 0.50 to 0.42" in health.warnings["fall"]
    assert ("--st-loss-weight 0" in health.warnings["fall"]) == self_training


def changed(*shares):
    engine = evaluated(1000)
    engine.state.evaluation.changes = [
        SourceChange(f"field/photo_{number}", share, "water", "crop", since=500)
        for number, share in enumerate(shares)
    ]
    return engine


def test_a_source_image_that_became_another_is_named_once(caplog):
    health = Health(NAMES)
    health.check_evaluation(changed(0.4, 0.1, 0.1, 0.1))
    assert health.warnings == {}
    for _ in range(2):
        health.check_evaluation(changed(0.78, 0.41, 0.1, 0.1, 0.1))
    assert list(health.warnings) == ["source field/photo_0", "source field/photo_1"]
    text = health.warnings["source field/photo_0"]
    assert "78% of field/photo_0" in text
    assert "than at iteration 500, crop instead of water: look at its map" in text
    assert len(caplog.records) == 2


def test_source_images_that_all_change_are_what_learning_looks_like():
    health = Health(NAMES)
    health.check_evaluation(changed(0.56, 0.55, 0.54, 0.52))
    assert health.warnings == {}
    health.check_evaluation(changed(0.56, 0.55, 0.2, 0.1, 0.1))
    assert len(health.warnings) == 2


def test_few_of_many_changed_source_images_are_named():
    health = Health(NAMES)
    for photos in (2, 40, 40):
        health.check_evaluation(changed(*[0.9] * photos, *[0.1] * 60))
    assert list(health.warnings) == [f"source field/photo_{number}" for number in range(5)]


def scored(score):
    engine = evaluated(100)
    engine.state.evaluation.validation["mIoU"] = score
    return engine


def test_good_signs_and_early_iterations_are_silent():
    health = Health(NAMES)
    health.check_training(logged(20000))
    health.check_training(logged(1999, st_px=0.0))
    health.check_training(logged(9999, ce=5.0, dice=0.9))
    health.check_evaluation(evaluated(20000, gap=0.09))
    health.check_evaluation(evaluated(1999, gap=0.5, water=0.0))
    health.check_evaluation(evaluated(20000, background=0.0, water=math.nan))
    assert health.warnings == {}


def test_few_st_pixels_are_no_sign_without_self_training():
    health = Health(NAMES, self_training=False)
    health.check_training(logged(20000, st_px=0.0))
    assert health.warnings == {}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(loss):
    with pytest.raises(FloatingPointError, match="--learning-rate"):
        Health(NAMES).check_training(logged(100, loss=loss))
