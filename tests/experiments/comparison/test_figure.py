"""The picture of a comparison."""

import math

import pytest

from experiments.comparison.figure import comparison_figure, mean_curve
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import made_up, write_study


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


def test_curves_are_means_where_all_seeds_were_judged():
    results = [
        made_up("v3", "four", 0, 0.5, curve=[[10, 0.2], [20, 0.5], [30, 0.9]]),
        made_up("v3", "four", 1, 0.7, curve=[[10, 0.4], [20, 0.7]]),
    ]
    assert mean_curve(results) == [(10, pytest.approx(0.3)), (20, pytest.approx(0.6))]
    assert mean_curve([]) == []


def test_every_seed_is_a_dot_and_lists_are_columns(study):
    results = [
        made_up("supervised", "four", 0, 0.5),
        made_up("v3", "four", 0, 0.53),
        made_up("v3", "four", 1, 0.57),
        made_up("supervised", "all", 0, 0.6),
    ]
    figure = comparison_figure(study, results)
    four, eight, curves, _ = figure.axes
    assert [axes.get_title() for axes in (four, eight)] == ["four", "eight"]
    assert [label.get_text() for label in four.get_yticklabels()] == ["supervised", "v3", "small"]
    dots = [line for line in four.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in dots] == [[0.5], [0.53, 0.57], []]
    lines = {line.get_label(): list(line.get_xdata()) for line in four.lines}
    assert lines["mean of supervised"] == pytest.approx([0.5, 0.5])
    assert lines["upper bound"] == pytest.approx([0.6, 0.6])
    drawn = {line.get_label(): list(line.get_ydata()) for line in curves.lines}
    assert drawn["v3"] == pytest.approx([0.2, 0.55])
    figure.canvas.draw()


def test_the_baseline_may_be_of_one_list(tmp_path):
    baseline = {"recipe": "supervised", "list": "four"}
    study = read_study(write_study(tmp_path, {"baseline": baseline}))
    results = [made_up("supervised", "four", 0, 0.5), made_up("supervised", "eight", 0, 0.6)]
    for axes in comparison_figure(study, results).axes[:2]:
        lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
        assert lines["mean of supervised, four"] == pytest.approx([0.5, 0.5])


def test_nothing_finished_and_no_score_draw_too(study):
    comparison_figure(study, [made_up("v3", "four", 0, math.nan)]).canvas.draw()
