"""What the curves show."""

import base64
import math
from dataclasses import replace

import numpy as np
import pytest

from ignite_salak.report.curves import (
    Chart,
    Line,
    comparison_charts,
    draw,
    picture,
    readable,
    run_charts,
)
from ignite_salak.report.run import Series, read_run


def series(values):
    return Series(np.arange(1, len(values) + 1), np.asarray(values, dtype=float))


def charts(run):
    return {chart.title: chart for chart in run_charts(run)}


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [(255, 255, 255), (255, 255, 0), (0, 255, 255), (254, 221, 58)])
def test_light_colours_are_darkened_to_be_seen_on_white(color):
    dark = readable(color)
    assert luminance(dark) == pytest.approx(0.25, abs=1e-6)
    assert 1.05 / (luminance(dark) + 0.05) > 3  # contrast that WCAG 2 asks of graphics


@pytest.mark.parametrize("color", [(0, 0, 0), (128, 0, 128), (255, 0, 0)])
def test_dark_colours_stay(color):
    assert readable(color) == pytest.approx([channel / 255 for channel in color])


def test_charts_of_a_run(folder):
    found = charts(read_run(folder))
    assert all(chart.drawn for chart in found.values())
    assert found["mIoU"].best == (3000, pytest.approx(0.7 - 0.4 * math.exp(-4)))
    assert found["mIoU"].start == 500
    assert [line.label for line in found["Losses"].lines] == ["loss", "ce", "dice", "focal", "st"]
    assert "50 iterations" in found["Losses"].note
    marks = found["Self-training pixels (ST_px)"].marks
    assert [value for value, _ in marks] == [10_000, 50_000]
    assert [line.label for line in found["Learning rate"].lines] == ["decoder", "encoder"]


def test_without_self_training_it_is_said(tmp_path, runs):
    config = runs.config(options={"self_training": {"st_loss_weight": 0}})
    run = read_run(runs.write(tmp_path, config=config, history=runs.history()))
    found = charts(run)
    for title in (
        "Self-training pixels (ST_px)",
        "Share of pixels kept, and on which the heads differ",
    ):
        assert found[title].drawn == ()
        assert "self-training is off" in found[title].missing
    assert found["mIoU"].start is None


def test_near_colours_differ_in_style(tmp_path, runs):
    names = [f"class {index}" for index in range(10)]
    colors = [(200 + index, 30, 30) for index in range(3)] + [(0, 30 * i, 250) for i in range(7)]
    run = read_run(
        runs.write(tmp_path, config=runs.config(names, colors), history=runs.history(names))
    )
    lines = charts(run)["IoU per class"].lines
    assert len({line.style for line in lines[:3]}) == 3
    looks = [(line.style, line.color) for line in lines]
    assert len(set(looks)) == 10


def test_of_many_classes_the_worst_are_drawn(tmp_path, runs):
    names = [f"class {index}" for index in range(30)]
    colors = [(index, 0, 0) for index in range(30)]
    row = {"iteration": 1, "validation/mIoU": 0.5}
    row |= {f"validation/IoU/{name}": index / 30 for index, name in enumerate(reversed(names))}
    chart = charts(
        read_run(runs.write(tmp_path, config=runs.config(names, colors), history=[row]))
    )["IoU per class"]
    assert [line.label for line in chart.lines][:2] == ["class 29", "class 28"]
    assert len(chart.lines) == 20
    assert "20 worst of 30 classes" in chart.note


def test_a_drawing_has_the_numbers_and_names_as_they_are():
    line = Line("_Badan $Air$ <&>", series([1.0, math.nan, 3.0]), "red")
    empty = Line("absent", series([math.nan]), "blue")
    chart = Chart("A", "unit", (line, empty), marks=((2.0, "here"),), start=2, best=(3, 3.0))
    figure = draw(chart)
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["_Badan $Air$ <&>", "self-training starts (2)", "best 3.000 at 3"]
    assert not figure.legends[0].get_texts()[0].get_parse_math()
    drawn = figure.axes[0].lines[0].get_ydata()
    assert drawn[0] == 1
    assert math.isnan(drawn[1])
    assert [text.get_text() for text in figure.axes[0].texts] == ["here"]


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [math.inf, 1.0], [1e9, 2e9]])
def test_odd_numbers_are_drawn(values):
    assert picture(draw(Chart("A", "unit", (Line("a", series(values), "red"),)))).startswith(
        "data:"
    )


def test_the_text_tells_first_and_last():
    chart = Chart("mIoU", "mIoU", (Line("validation", series([0.25, math.nan, 0.5]), "red"),))
    assert chart.text == "mIoU: validation from 0.25 to 0.5"


def test_runs_lie_over_each_other(folder):
    run = read_run(folder)
    chart = comparison_charts([run, replace(run, name="b")])[0]
    assert [line.label for line in chart.lines] == ["a run", "b"]
    assert chart.lines[0].color != chart.lines[1].color
    many = comparison_charts([run] * 20)[0].lines
    assert len({(line.color, line.style) for line in many}) == 20


def test_a_picture_is_an_svg_or_if_that_is_long_a_png(monkeypatch):
    figure = draw(Chart("A", "unit", (Line("a", series([1, 2]), "red"),)))
    head, _, content = picture(figure).partition(",")
    assert head == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(content)
    assert picture(figure) == f"{head},{content}"  # no date, no random name
    monkeypatch.setattr("ignite_salak.report.curves._LARGEST_SVG", 100)
    head, _, content = picture(figure).partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content).startswith(b"\x89PNG")
