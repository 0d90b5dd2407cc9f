"""The comparison as a user calls it; the runs' scripts are called in this process, to be quick."""

import contextlib
import importlib
import json

import pytest

import experiments.comparison.cell_run
import experiments.comparison.plan
import experiments.comparison.runs
from experiments.compare import main
from experiments.comparison.cells import read_history
from experiments.comparison.flag_groups import by_flag
from experiments.console import run_script

NOT_COMMON = ("st-start-iter", "confidence-threshold", "use-classwise-threshold", "threads")


class InProcess:
    """Stands in for a process: runs a script at once."""

    pid = 2**22 + 1  # of no process

    def __init__(self, script, flags, log):
        module = importlib.import_module(f"experiments.{script}")
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            self.status = run_script(module.main, flags)

    def poll(self):
        return self.status

    def wait(self, timeout=None):
        return self.status


@pytest.fixture
def called(monkeypatch):
    """Scripts that were run, with their flags."""
    calls = []

    def run(script, flags, log):
        calls.append((script, by_flag(flags, "flags")))
        return InProcess(script, flags, log)

    for module in (experiments.comparison.cell_run, experiments.comparison.plan):
        monkeypatch.setattr(module, "run_process", run)
    monkeypatch.setattr(experiments.comparison.runs, "_LOOK_EVERY", 0.0)
    return calls


@pytest.fixture
def study(tmp_path, tiny_flags):
    """Path of a study of supervised training and V3 on the plantation, with its lists."""
    lists = {"two": "DJI_0001\nDJI_0003\n", "val": "DJI_0004\n"}
    for name, photos in lists.items():
        (tmp_path / f"{name}.txt").write_text(photos, encoding="utf-8")
    groups = by_flag(tiny_flags, "tiny")
    common = [tuple(group) for name, group in groups.items() if name not in NOT_COMMON]
    v3 = ["--st-start-iter=4", "--confidence-threshold=0.0", "--no-use-classwise-threshold"]
    content = {
        "common": [token for group in common for token in group],
        "recipes": {
            "supervised": {"script": "train_v3", "flags": ["--st-loss-weight=0"]},
            "v3": {"script": "train_v3", "flags": v3},
        },
        "lists": {"two": "two.txt"},
        "validation": "val.txt",
        "seeds": [0, 1],
        "baseline": "supervised",
        "judge_pseudo_labels": True,
    }
    path = tmp_path / "study.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def call(study, shared_plantation, tmp_path):
    """Calls the comparison; returns its status."""

    def call(*flags):
        places = [f"--data-root={shared_plantation.root}", f"--lists-folder={tmp_path}"]
        return run_script(main, [str(study), *places, f"--output={tmp_path / 'runs'}", *flags])

    return call


def change(study, old, new):
    study.write_text(study.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@pytest.mark.slow
def test_a_study_from_first_call_to_tables(call, called, study, tmp_path, capsys):
    runs = tmp_path / "runs"
    assert call("--only", "v3") == 0
    assert [script for script, _ in called] == ["train_v3", "evaluate", "evaluate"] * 2
    assert "2 of 4 cells are finished." in (runs / "comparison.md").read_text(encoding="utf-8")
    called.clear()
    assert call() == 0
    assert [flags["seed"][1] for script, flags in called if script == "train_v3"] == ["0", "1"]
    page = (runs / "comparison.md").read_text(encoding="utf-8")
    assert "4 of 4 cells are finished." in page
    assert page in capsys.readouterr().out
    for name in ("comparison.csv", "cells.csv", "comparison.png"):
        assert (runs / name).stat().st_size > 100
    cell = json.loads((runs / "v3/two/seed_1/cell.json").read_text(encoding="utf-8"))
    assert cell["st_px"] > 0
    assert 0.0 <= cell["pseudo_labels"]["precision"] <= 1.0
    assert cell["budget"]["num-steps"] == 6
    # The finished model, judged photo by photo, is the one that the last evaluation judged.
    [matrix] = cell["confusions"].values()
    summary = json.loads((runs / "v3/two/seed_1/summary.json").read_text(encoding="utf-8"))
    assert matrix == summary["last"]["confusion"]
    # One seed means the same labelled batches: until V3 begins, both learn the same.
    first, second = (read_history(runs / name / "two/seed_0") for name in ("supervised", "v3"))
    assert first[0]["ce"] == second[0]["ce"]
    assert first[-1]["ce"] != second[-1]["ce"]

    # A finished study runs nothing, and says so; its flags may not change unnoticed.
    called.clear()
    assert call() == 0
    assert call("--plan") == 0
    assert "0 of 4 cells are left" in capsys.readouterr().out
    assert not called
    change(study, "0.003", "0.002")
    assert call("--tables-only") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--learning-rate 0.003 instead of --learning-rate 0.002" in line
    assert "supervised/two/seed_0" in line
    assert not called

    # Nor may a default of the script, which no flag names.
    change(study, "0.002", "0.003")
    assert call("--tables-only") == 0
    config = runs / "v3/two/seed_1/config.json"
    content = config.read_text(encoding="utf-8")
    assert '"gradient_clip": 10.0' in content
    config.write_text(content.replace('"gradient_clip": 10.0', '"gradient_clip": 5.0'), "utf-8")
    capsys.readouterr()
    assert call() == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "v3/two/seed_1 was made with --gradient-clip 5.0 instead of 10.0" in line


@pytest.mark.slow
def test_overwrite_makes_only_what_has_changed_anew(call, called, study, capsys):
    change(study, "[0, 1]", "[0]")
    change(study, '"judge_pseudo_labels": true', '"judge_pseudo_labels": false')
    change(study, "--num-steps=6", "--num-steps=2")
    assert call() == 0
    called.clear()
    change(study, "--st-start-iter=4", "--st-start-iter=5")
    assert call() == 2
    assert call("--overwrite") == 0
    (_, flags), (judge, _) = called
    assert judge == "evaluate"
    assert flags["st-start-iter"][1] == "5"
    assert "1 of 2 cells are finished already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_plan_times_a_few_steps_where_nothing_ran(call, called, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(experiments.comparison.plan, "_STEPS", 2)
    assert call("--plan", "--jobs=2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["supervised/two/seed_0", "open"],
        ["v3/two/seed_0", "open"],
        ["supervised/two/seed_1", "open"],
        ["v3/two/seed_1", "open"],
    ]
    assert all(float(line.split()[2]) >= 0 for line in lines[1:5])
    assert lines[-1].startswith("4 of 4 cells are left")
    assert [flags["num-steps"][1] for _, flags in called] == ["4", "4"]
    assert not (tmp_path / "runs").exists()


def test_a_cell_that_fails_ends_in_status_1(call, called, study, capsys):
    change(study, "[0, 1]", "[0]")
    change(study, "--confidence-threshold=0.0", "--confidence-threshold=7")
    with pytest.raises(SystemExit) as ended:
        call()
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert "v3/two/seed_0: training ended with status 2" in told.err
    assert "1 of 2 cells are finished." in told.out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--jobs=0"], "--jobs 0 is not at least 1"),
        (["--threads=0"], "--threads 0 is not at least 1"),
        (["--plan", "--tables-only"], "give one of the two"),
        (["--only", "v9"], "--only v9: the study has supervised, v3"),
        (["--data-root=nowhere"], "--data-root nowhere is not a folder"),
        (["--lists-folder=nowhere"], "cannot be read"),
    ],
)
def test_refusals_are_one_line(call, called, tmp_path, capsys, flags, words):
    assert call(*flags) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    assert words in line
    assert not called
    assert not (tmp_path / "runs").exists()


def test_tables_of_nothing(call, capsys):
    assert call("--tables-only") == 0
    assert "no cell is finished" in capsys.readouterr().out
