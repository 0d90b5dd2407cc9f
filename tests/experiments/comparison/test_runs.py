"""The processes of a comparison, played by small ones that write what a run leaves."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.comparison.runs as runs
from experiments.comparison.setting import Setting
from experiments.comparison.standing import stand, write_progress
from experiments.comparison.study import by_flag, read_study
from tests.experiments.comparison.made_up import CLASSES, write_study

RUN = """
import json, pathlib, sys, time
folder, status, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
last = {"iteration": 20, "score": 0.5, "confusion": [[9, 0, 0], [0, 4, 1], [0, 1, 4]]}
summary = {"state": "completed", "classes": %r, "last": last, "best": last, "warnings": []}
(folder / "history.csv").write_text("iteration,validation/mIoU\\n20,0.5\\n")
(folder / "summary.json").write_text(json.dumps(summary))
time.sleep(seconds)
if status == 0:
    (folder / "final_model.pth").write_bytes(b"")
else:
    print("error: it went wrong", flush=True)
sys.exit(max(0, status))
"""


class Stage:
    """Starts small processes in place of the scripts; keeps what was called."""

    def __init__(self):
        self.calls = []
        self.status = {}
        self.seconds = 0.0
        self.running = 0

    def __call__(self, script, flags, log):
        groups = by_flag(flags, "flags")
        self.calls.append((script, groups))
        folder = groups.get("checkpoint-dir", groups.get("output", ("", "")))[1]
        Path(folder).mkdir(parents=True, exist_ok=True)
        if script == "evaluate":
            judged = [{"name": "all", "precision": 0.8, "kept_share": 0.5}]
            content = {
                "scores": {"mIoU": 0.4},
                "patches": 3,
                "pseudo_labels": {"judged": judged},
            }
            Path(folder, "metrics.json").write_text(json.dumps(content), encoding="utf-8")
        key = script if script == "evaluate" else groups["seed"][1]
        status = str(self.status.get(key, 0))
        code = [sys.executable, "-c", RUN % CLASSES, folder, status, str(self.seconds)]
        with log.open("a", encoding="utf-8") as file:
            return subprocess.Popen(code, stdout=file, stderr=file)


@pytest.fixture
def stage(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(runs, "run_process", stage)
    monkeypatch.setattr(runs, "_LOOK_EVERY", 0.01)
    return stage


@pytest.fixture
def setting(tmp_path):
    study = read_study(write_study(tmp_path, {"judge_pseudo_labels": True}))
    return Setting(study, tmp_path, tmp_path, tmp_path / "runs", 1)


def cell_runs(setting, count):
    cells = setting.study.cells(["v3"])[:count]
    return [
        runs.CellRun(
            setting,
            cell,
            setting.study.options(cell.recipe),
            stand(setting.folder(cell), setting.identity(cell), cell.name),
        )
        for cell in cells
    ]


def test_cells_are_trained_judged_and_kept(setting, stage, capsys):
    first, second = cell_runs(setting, 2)
    runs.run_cells([first, second], jobs=1)
    assert [script for script, _ in stage.calls] == ["train_v3", "evaluate"] * 2
    assert stage.calls[0][1]["overwrite"] == ("--overwrite",)
    assert stage.calls[1][1]["pool"] == ("--pool", "unlabeled")
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


def test_a_run_that_was_stopped_is_not_finished(setting, stage):
    stage.status = {"0": -1}  # status 0, but no final model
    [run] = cell_runs(setting, 1)
    runs.run_cells([run], jobs=1)
    assert run.failure == "stopped at iteration 20; the same command goes on"


def test_photos_without_masks_leave_the_judgement_out(setting, stage, capsys):
    stage.status = {"evaluate": 2}
    [run] = cell_runs(setting, 1)
    runs.run_cells([run], jobs=1)
    assert run.result["pseudo_labels"] is None
    assert run.result["not_judged"] == "error: it went wrong"
    assert "pseudo-labels not judged" in capsys.readouterr().out


def test_a_judgement_that_crashes_is_made_again_without_training(setting, stage):
    stage.status = {"evaluate": 1}
    [run] = cell_runs(setting, 1)
    runs.run_cells([run], jobs=1)
    assert run.failure.startswith("judging ended with status 1")
    stage.status, stage.calls = {}, []
    [again] = cell_runs(setting, 1)
    runs.run_cells([again], jobs=1)
    assert [script for script, _ in stage.calls] == ["evaluate"]
    assert again.result["minutes"] > 0


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_a_begun_cell_goes_on_from_its_checkpoint(setting, stage, has_checkpoint):
    [cell, *_] = setting.study.cells(["v3"])
    folder = setting.folder(cell)
    folder.mkdir(parents=True)
    write_progress(folder, setting.identity(cell), 60.0, None)
    latest = folder / "latest_checkpoint.pth"
    if has_checkpoint:
        latest.write_bytes(b"")
    [run] = cell_runs(setting, 1)
    runs.run_cells([run], jobs=1)
    flags = stage.calls[0][1]
    restored = ("--restore-from", str(latest)) if has_checkpoint else None
    assert flags.get("restore-from") == restored
    assert ("overwrite" in flags) != has_checkpoint
    assert 1.0 < run.result["minutes"] < 1.5  # the earlier minute, and a moment


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


def test_the_judge_reads_patches_as_training_did(tmp_path, setting):
    mapping = str(tmp_path / "c.csv")
    common = ["--input-size=64", "--class-mapping", mapping, "--device=cpu", "--skip-bad-files"]
    study = read_study(write_study(tmp_path, {"common": common}))
    flags = runs.judge_flags(setting, study.options(study.recipes["supervised"]), tmp_path)
    groups = by_flag(flags, "flags")
    for name, value in {"input-size": "64", "class-mapping": mapping, "device": "cpu"}.items():
        assert groups[name] == (f"--{name}", value)
    assert "skip-bad-files" in groups


@pytest.mark.slow
def test_a_real_script_says_why_in_the_log(tmp_path):
    log = tmp_path / "log.txt"
    flags = ["--checkpoint", str(tmp_path / "none.pth"), "--data-root", str(tmp_path)]
    assert runs.run_process("evaluate", flags, log).wait() == 2
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    assert lines[0].startswith("$ ")
    assert "none.pth" in lines[-1]
