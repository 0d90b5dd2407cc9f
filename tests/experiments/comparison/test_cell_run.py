"""One cell, from training to cell.json, its processes played by small ones."""

import pytest

from experiments.comparison.cell_run import judge_flags, run_process
from experiments.comparison.flag_groups import by_flag
from experiments.comparison.runs import run_cells
from experiments.comparison.setting import Setting
from experiments.comparison.standing import write_progress
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import cell_runs, write_study


def test_a_run_that_was_stopped_is_not_finished(setting, stage):
    stage.status = {"0": -1}  # status 0, but no final model
    [run] = cell_runs(setting, 1)
    run_cells([run], jobs=1)
    assert run.failure == "stopped at iteration 20; the same command goes on"


def pools(stage):
    """The pools that were judged, in this order."""
    return [groups["pool"][1] for script, groups in stage.calls if script == "evaluate"]


def test_a_trained_cell_is_judged_on_both_pools(setting, stage):
    [run] = cell_runs(setting, 1)
    run_cells([run], jobs=1)
    assert pools(stage) == ["validation", "unlabeled"]
    assert ["pseudo-labels" in groups for _, groups in stage.calls[1:]] == [False, True]
    assert run.result["confusions"].keys() == {"val_a"}
    assert run.result["pseudo_labels"]["precision"] == 0.8
    assert run.result["judging_minutes"] > 0


def test_a_study_can_leave_the_pseudo_labels_out(tmp_path, stage):
    study = read_study(write_study(tmp_path))
    [run] = cell_runs(Setting(study, tmp_path, tmp_path, tmp_path / "runs", 1), 1)
    run_cells([run], jobs=1)
    assert pools(stage) == ["validation"]
    assert run.result["confusions"] is not None
    assert run.result["pseudo_labels"] is None


def test_photos_without_masks_leave_the_judgement_out(setting, stage, capsys):
    stage.status = {"unlabeled": 2}
    [run] = cell_runs(setting, 1)
    run_cells([run], jobs=1)
    assert run.result["pseudo_labels"] is None
    assert run.result["confusions"] is not None
    assert run.result["not_judged"] == "error: it went wrong"
    assert "pseudo-labels not judged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pool", "status"), [("unlabeled", 1), ("validation", 1), ("validation", 2)]
)
def test_a_judgement_that_crashes_is_made_again_without_training(setting, stage, pool, status):
    stage.status = {pool: status}
    [run] = cell_runs(setting, 1)
    run_cells([run], jobs=1)
    assert run.failure.startswith(f"judging ended with status {status}")
    stage.status, stage.calls = {}, []
    [again] = cell_runs(setting, 1)
    run_cells([again], jobs=1)
    assert [script for script, _ in stage.calls] == ["evaluate", "evaluate"]
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
    run_cells([run], jobs=1)
    flags = stage.calls[0][1]
    restored = ("--restore-from", str(latest)) if has_checkpoint else None
    assert flags.get("restore-from") == restored
    assert ("overwrite" in flags) != has_checkpoint
    assert 1.0 < run.result["minutes"] < 1.5  # the earlier minute, and a moment


def test_the_judge_reads_patches_as_training_did(tmp_path, setting):
    mapping = str(tmp_path / "c.csv")
    common = ["--input-size=64", "--class-mapping", mapping, "--device=cpu", "--skip-bad-files"]
    study = read_study(write_study(tmp_path, {"common": common}))
    flags = judge_flags(setting, study.options(study.recipes["supervised"]), tmp_path, "validation")
    groups = by_flag(flags, "flags")
    for name, value in {"input-size": "64", "class-mapping": mapping, "device": "cpu"}.items():
        assert groups[name] == (f"--{name}", value)
    assert "skip-bad-files" in groups


@pytest.mark.slow
def test_a_real_script_says_why_in_the_log(tmp_path):
    log = tmp_path / "log.txt"
    flags = ["--checkpoint", str(tmp_path / "none.pth"), "--data-root", str(tmp_path)]
    assert run_process("evaluate", flags, log).wait() == 2
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    assert lines[0].startswith("$ ")
    assert "none.pth" in lines[-1]
