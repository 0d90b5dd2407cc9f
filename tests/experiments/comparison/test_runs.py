"""Cells side by side and one after another, their processes played by small ones."""

import pytest

import experiments.comparison.runs as runs
from experiments.comparison.standing import stand
from tests.experiments.comparison.made_up import cell_runs


def test_cells_are_trained_judged_and_kept(setting, stage, capsys):
    first, second = cell_runs(setting, 2)
    runs.run_cells([first, second], jobs=1)
    assert [script for script, _ in stage.calls] == ["train_v3", "evaluate", "evaluate"] * 2
    assert stage.calls[0][1]["overwrite"] == ("--overwrite",)
    assert stage.calls[1][1]["pool"] == ("--pool", "validation")
    assert stage.calls[2][1]["pool"] == ("--pool", "unlabeled")
    # palm and road: 4 right of 6
    assert first.result["last"]["mIoU"] == pytest.approx(2 / 3)
    assert first.result["pseudo_labels"]["precision"] == 0.8
    assert stand(first.folder, setting.identity(first.cell), "").state == "done"
    assert "v3/four/seed_0: mIoU 0.6667, best 0.6667" in capsys.readouterr().out


def test_side_by_side(setting, stage):
    stage.seconds = 0.3
    pair = cell_runs(setting, 2)
    runs.run_cells(pair, jobs=2)
    assert [script for script, _ in stage.calls[:2]] == ["train_v3", "train_v3"]
    assert all(run.result for run in pair)


def test_a_cell_that_fails_is_told_and_the_others_go_on(setting, stage, capsys):
    stage.status = {"0": 1}
    three = cell_runs(setting, 3)
    runs.run_cells(three, jobs=1)
    assert [run.cell.seed for run in three] == [0, 0, 1]
    assert [run.result is None for run in three] == [True, True, False]
    assert three[0].failure.startswith("training ended with status 1: error: it went wrong")
    assert "v3/four/seed_0: FAILED: training ended with status 1" in capsys.readouterr().out
    assert stand(three[0].folder, setting.identity(three[0].cell), "").state == "begun"


def test_ctrl_c_stops_the_processes_and_keeps_the_time(setting, stage, monkeypatch):
    stage.seconds = 60.0
    monkeypatch.setattr(runs, "_PATIENCE", 0.05)

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.time, "sleep", interrupt)
    [run] = cell_runs(setting, 1)
    with pytest.raises(KeyboardInterrupt):
        runs.run_cells([run], jobs=1)
    standing = stand(run.folder, setting.identity(run.cell), "")
    assert (standing.state, standing.process) == ("begun", None)
    assert standing.seconds > 0
