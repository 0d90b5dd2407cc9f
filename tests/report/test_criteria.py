"""The guide's success levels."""

import math

import pytest

from ignite_salak.report.criteria import LEVELS, judge
from ignite_salak.report.run import read_run


def verdicts(runs, folder, evaluations, *, state="completed", options=None, st_px=None):
    """Judges a run of evaluations {iteration: (mIoU, gap)} and ST_px {iteration: pixels}."""
    rows = {}
    for iteration, (score, gap) in evaluations.items():
        rows[iteration] = {"iteration": iteration, "validation/mIoU": score, "gap": gap}
    for iteration, pixels in (st_px or {}).items():
        rows.setdefault(iteration, {"iteration": iteration})["st_px"] = pixels
    config = runs.config(options=options)
    summary = None
    if evaluations:
        summary = runs.summary(7, max(evaluations), max(evaluations), state)
    history = [rows[key] for key in sorted(rows)]
    run = read_run(runs.write(folder, config=config, history=history, summary=summary))
    return {verdict.level.name: verdict for verdict in judge(run)}


def met(verdict):
    return {outcome.criterion.measure: outcome.met for outcome in verdict.outcomes}


def test_the_bounds_are_the_guides():
    told = [[(c.measure, c.above, c.below) for c in level.criteria[:3]] for level in LEVELS]
    inf = math.inf
    assert told == [
        [("mIoU", 0.60, inf), ("ST_px", 10_000, inf), ("gap", -inf, 0.12)],
        [("mIoU", 0.70, inf), ("ST_px", 30_000, inf), ("gap", -inf, 0.08)],
        [("mIoU", 0.75, inf), ("ST_px", 40_000, inf), ("gap", -inf, 0.05)],
    ]
    assert [level.until for level in LEVELS] == [20_000, None, None]
    assert LEVELS[1].criteria[3].text == "no early stopping"
    assert LEVELS[2].criteria[3].text == "matches DiverseNet"


def test_all_reached_but_for_what_one_run_cannot_tell(runs, tmp_path):
    found = verdicts(runs, tmp_path, {500: (0.76, 0.04)}, st_px={450: 41_000, 550: 5.0})
    assert [verdict.reached for verdict in found.values()] == [True, True, None]
    assert met(found["Excellent"])["DiverseNet"] is None
    shown = [outcome.shown for outcome in found["Good"].outcomes]
    assert shown == ["0.760", "41,000", "0.040", "ran to its end"]


def test_a_bound_itself_is_not_enough(runs, tmp_path):
    found = verdicts(runs, tmp_path, {500: (0.60, 0.12)}, st_px={500: 10_000})
    assert met(found["Minimum"]) == {"mIoU": False, "ST_px": False, "gap": False}


def test_the_minimum_is_judged_by_20000_iterations(runs, tmp_path):
    evaluations = {20_000: (0.5, 0.2), 20_500: (0.72, 0.01)}
    found = verdicts(runs, tmp_path, evaluations, st_px={19_000: 12_000, 20_500: 35_000})
    assert (found["Minimum"].iteration, found["Good"].iteration) == (20_000, 20_500)
    assert met(found["Minimum"]) == {"mIoU": False, "ST_px": True, "gap": False}
    assert found["Good"].reached


def test_the_numbers_are_those_of_the_best_evaluation(runs, tmp_path):
    evaluations = {500: (0.65, 0.02), 1000: (0.62, 0.30)}
    found = verdicts(runs, tmp_path, evaluations, st_px={500: 20_000, 1000: 3.0})
    assert found["Minimum"].reached


def test_without_self_training_there_are_no_pixels(runs, tmp_path):
    options = {"self_training": {"st_loss_weight": 0}}
    found = verdicts(runs, tmp_path, {500: (0.9, 0.0)}, options=options)
    pixels = found["Minimum"].outcomes[1]
    assert (pixels.met, pixels.shown) == (False, "0 (self-training is off)")
    assert found["Minimum"].reached is False


def test_no_evaluation_yet(runs, tmp_path):
    found = verdicts(runs, tmp_path, {}, st_px={50: 20_000})
    assert met(found["Minimum"]) == {"mIoU": None, "ST_px": None, "gap": None}
    assert found["Minimum"].reached is None
    assert found["Minimum"].outcomes[0].shown == "no evaluation yet"


def test_nan_is_not_measured(runs, tmp_path):
    found = verdicts(runs, tmp_path, {500: (0.9, math.nan)}, st_px={500: 20_000})
    assert met(found["Minimum"])["gap"] is None


@pytest.mark.parametrize(
    ("state", "patience", "expected"),
    [
        ("completed", 5, True),
        ("stopped early", 5, False),
        ("interrupted", None, True),
        ("interrupted", 5, None),
        ("running", 5, None),
    ],
)
def test_early_stopping(runs, tmp_path, state, patience, expected):
    options = {"run": {"early_stop_patience": patience}}
    found = verdicts(
        runs, tmp_path, {500: (0.9, 0.0)}, state=state, options=options, st_px={500: 50_000}
    )
    assert met(found["Good"])["early stopping"] is expected
    assert found["Good"].reached is expected
