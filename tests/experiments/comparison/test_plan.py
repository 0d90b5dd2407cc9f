"""What a comparison would run, and for how long."""

import json

import pytest

from experiments.comparison.flag_groups import by_flag
from experiments.comparison.plan import Pace, _short, pace_of_cells, plan_table, side_by_side
from experiments.comparison.setting import Setting
from experiments.comparison.standing import Standing
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import write_study


@pytest.fixture
def setting(tmp_path):
    return Setting(read_study(write_study(tmp_path)), tmp_path, tmp_path, tmp_path / "runs", 1)


def test_minutes_of_a_pace_by_hand():
    pace = Pace(30.0, 2.0, 15.0, "timed")
    assert pace.minutes(100, 50) == pytest.approx((30 + 200 + 2 * 15) / 60)
    assert pace.minutes(101, 50) == pytest.approx((30 + 202 + 3 * 15) / 60)
    assert pace.minutes(0, 50) == 0.0


def test_side_by_side_by_hand():
    assert side_by_side([3.0, 1.0, 1.0, 4.0], 1) == 9.0
    # One job has 3, the other 1 + 1; the last goes to the one that is free at 2.
    assert side_by_side([3.0, 1.0, 1.0, 4.0], 2) == 6.0
    assert side_by_side([], 2) == 0.0


def test_finished_cells_are_the_best_clock(setting):
    first, second, third = setting.study.cells(["v3"])[:3]
    folder = setting.folder(first)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps({"judging_minutes": 0.5}), encoding="utf-8")
    done, begun = Standing("done", 20, 40.0, True), Standing("begun", 10, 50.0)
    standings = {first: done, second: begun, third: Standing("open")}
    assert pace_of_cells(setting, standings, "v3", 10) == Pace(30.0, 2.0, 0.0, "1 finished")
    standings = {second: begun, third: Standing("open")}
    assert pace_of_cells(setting, standings, "v3", 10) == Pace(0.0, 5.0, 0.0, "1 begun")
    assert pace_of_cells(setting, standings, "v3", 11) is None
    assert pace_of_cells(setting, standings, "supervised", 10) is None


def test_the_timed_run_is_short_and_has_everything_switched_on(setting):
    cell = setting.study.cells(["v3"])[0]
    options = setting.study.options(cell.recipe)
    groups = by_flag(_short(setting.flags(cell, setting.output), options), "here")
    for name, value in {
        "num-steps": 12,
        "eval-every": 12,
        "log-every": 6,
        "st-start-iter": 1,
    }.items():
        assert groups[name] == (f"--{name}", str(value))
    assert groups["ema-decay"] == ("--ema-decay", "0.5")


def test_the_table_has_states_and_what_is_left(setting):
    cells = setting.study.cells(["v3"])
    states = [
        Standing("done", 20, 1.0, True),
        Standing("begun", 5, 1.0),
        Standing("begun", 20, 1.0, trained=True),
        Standing("busy", 7, 1.0, process=99),
    ]
    standings = dict(zip(cells, states, strict=True))
    paces = {"v3": Pace(0.0, 60.0, 0.0, "1 begun")}
    table = plan_table(standings, paces, {"v3": (20, 10)}, 2)
    lines = table.splitlines()
    assert lines[1].split() == ["v3/four/seed_0", "done"]
    assert lines[2].split()[:5] == ["v3/eight/seed_0", "at", "iteration", "5", "15.0"]
    assert "trained, to be judged" in lines[3]
    assert "at iteration 7, process 99 works on it" in lines[4]
    assert lines[-1].startswith("2 of 4 cells are left: about 15 minutes with --jobs 2")
