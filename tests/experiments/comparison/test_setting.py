"""Command lines of cells, and what their results depend on."""

import json
from pathlib import Path

import pytest

from experiments.comparison.flag_groups import by_flag
from experiments.comparison.setting import Setting, differing
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import STUDY, write_study


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


def test_identity_is_what_the_result_depends_on(tmp_path, study):
    cell = study.cells(["v3"])[0]
    setting = Setting(study, tmp_path, tmp_path, tmp_path / "runs", 1)
    identity = setting.identity(cell)
    assert identity["labeled"] == ["4_a", "4_b"]
    assert identity["flags"]["ema-decay"] == "--ema-decay 0.5"
    assert json.loads(json.dumps(identity)) == identity
    more = {"common": ["--no-tensorboard", "--num-workers=0", *STUDY["common"]]}
    other = read_study(write_study(tmp_path, more))
    same = Setting(other, tmp_path, tmp_path, tmp_path, 1).identity(cell)
    assert differing(identity, same) == ""
    changed = Setting(study, tmp_path, tmp_path, tmp_path, 2).identity(cell)
    assert differing(identity, changed) == "threads 1 instead of 2"
    flags = {name: text for name, text in identity["flags"].items() if name != "batch-size"}
    wanted = {**identity, "flags": {**flags, "ema-decay": "--ema-decay 0.6"}}
    assert differing(identity, wanted) == (
        "--batch-size 2 instead of no --batch-size; --ema-decay 0.5 instead of --ema-decay 0.6"
    )
    (tmp_path / "4.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"4\.txt"):
        setting.identity(cell)


def test_the_command_line_of_a_cell(tmp_path, study):
    cell = study.cells(["v3"])[0]
    flags = Setting(study, Path("DATA"), Path("LISTS"), tmp_path, 3).flags(cell, Path("RUN"))
    groups = by_flag(flags, "here")
    assert groups["labeled-files"] == ("--labeled-files", str(Path("LISTS", "4.txt")))
    assert groups["val-files"] == ("--val-files", str(Path("LISTS", "val.txt")))
    assert groups["seed"] == ("--seed", "0")
    assert groups["threads"] == ("--threads", "3")
    assert groups["checkpoint-dir"] == ("--checkpoint-dir", "RUN")
