"""The tables of a page."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ignite_salak.data.balance import balanced_weights
from ignite_salak.report import tables
from ignite_salak.report.run import read_run


def test_numbers_and_times():
    assert [tables.number(v) for v in (0.1234, None, math.nan)] == ["0.123", "-", "absent"]
    seconds = (None, math.inf, 0.0312, 59, 119, 3700, 93_600)
    assert [tables.duration(v) for v in seconds] == [
        *("-", "-", "0.0312 s", "59 s", "2 min", "1 h 2 min", "1 d 2 h")
    ]


def test_training_time_is_that_of_all_iterations(folder):
    run = read_run(folder)
    assert tables.step_time(run) == pytest.approx(1.6)
    assert tables.training_time(run) == pytest.approx(3000 * 1.6)
    nothing = replace(run, history={})
    assert (tables.step_time(nothing), tables.training_time(nothing)) == (None, None)


def test_states():
    assert "killed" in tables._STATES["running"]


def test_classes_at_best(folder):
    rows = tables.class_rows(read_run(folder))
    assert [row.background for row in rows] == [True] + [False] * 6
    assert rows[1].color == "#0080ff"
    assert 0 < rows[1].iou < 1
    assert (rows[1].weight, rows[1].threshold) == (1.5, 0.6)


def test_shares_are_the_inverse_of_the_balanced_weights(folder):
    run = read_run(folder)
    counts = np.array([10, 0, 30, 60])
    weights = dict(zip("abcd", balanced_weights(counts).astype(np.float32).tolist(), strict=True))
    shares = tables.labelled_shares(replace(run, config={**run.config, "class_weights": weights}))
    assert list(shares.values()) == pytest.approx([0.1, 0, 0.3, 0.6], rel=1e-6)
    even = {**run.config, "class_weights": {"a": 1.0, "b": 1.0}}
    assert tables.labelled_shares(replace(run, config=even)) == {"a": 0.5, "b": 0.5}
    assert tables.labelled_shares(replace(run, config={"options": {}})) == {}


def test_options_that_were_changed_come_first(folder):
    run = read_run(folder)
    assert not any(row.changed for rows in tables.settings(run).values() for row in rows)
    schedule = {**run.config["options"]["schedule"], "learning_rate": 0.1}
    defaults = {**run.config["options"], "schedule": schedule, "demo": True}
    found = tables.settings(replace(run, config={**run.config, "defaults": defaults}))
    first = found["schedule"][0]
    assert (first.flag, first.value, first.default) == ("--learning-rate", "0.00025", "0.1")
    assert [row.flag for rows in found.values() for row in rows if row.changed] == [
        "--learning-rate",
        "--demo",
    ]


def test_values_as_people_write_them():
    values = (None, True, False, 0.00025, (), ["a=1", "b=2"], (0.75, 1.5), "x", 50000)
    assert [tables.plain(value) for value in values] == [
        *("not given", "yes", "no", "0.00025", "none", "a=1, b=2", "0.75, 1.5", "x", "50000")
    ]


def test_options_in_which_runs_differ(folder, tmp_path, runs):
    options = {"run": {"checkpoint_dir": "b", "seed": 1}, "loss": {"new": 2}}
    environment = {"command": ["other"], "packages": {"torch": "3"}, "device": "cpu"}
    config = runs.config(options=options, environment=environment)
    other = read_run(runs.write(tmp_path / "b", config=config, history=runs.history()))
    assert tables.differing_options([read_run(folder), other]) == (
        ("--seed", ("0", "1")),
        ("torch", ("2.15.0", "3")),
        ("--new", ("-", "2")),
    )


def test_columns_that_no_chart_shows(folder):
    found = {name: (best, last) for name, best, last in tables.other_numbers(read_run(folder))}
    assert found["ema_decay"] == ("0.9995", "0.9995")
    assert "st_px/Jalan" in found
    assert "loss" not in found
    assert not any("IoU/" in name for name in found)


def test_what_forbids_a_comparison(folder):
    run = read_run(folder)
    assert tables.notices([run, run]) == ()
    sources = {**run.config["sources"], "validation": ["z"]}
    assert (
        "not of the same test"
        in tables.notices([run, replace(run, config={**run.config, "sources": sources})])[0]
    )
    assert "different iterations" in tables.notices([run, replace(run, iteration=5)])[0]
    unknown = replace(run, config={**run.config, "sources": {}})
    assert "Not every run says" in tables.notices([run, unknown])[0]
    names = replace(run.classes, names=tuple("abcdefg"))
    assert "class lists differ" in tables.notices([run, replace(run, classes=names)])[0]
