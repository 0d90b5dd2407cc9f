"""What a run leaves in the folder of its cell, and cells whose processes are small ones."""

import pytest

from experiments.comparison import cell_run, runs
from experiments.comparison.setting import Setting
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import CLASSES, Stage, save, write_study

# Rows are the truth; palm: 6 right of 6 + 2 + 2, road: 3 of 3 + 2 + 5.
CONFUSION = [[10, 0, 3], [0, 6, 2], [0, 2, 3]]
HISTORY = """\
iteration,loss,st_px,validation/mIoU
5,1.5,10,
10,1.2,20,0.25
20,1.1,,0.45
"""


@pytest.fixture
def trained(tmp_path):
    """What a run leaves that was evaluated twice, the first time without a score."""
    last = {"iteration": 20, "score": 0.45, "confusion": CONFUSION}
    save(
        tmp_path,
        "summary.json",
        {"state": "completed", "classes": CLASSES, "last": last, "best": None, "warnings": []},
    )
    save(tmp_path, "config.json", {"environment": {"platform": "Linux"}})
    (tmp_path / "history.csv").write_text(HISTORY, encoding="utf-8")
    (tmp_path / "final_model.pth").write_bytes(b"")
    return tmp_path


@pytest.fixture
def stage(monkeypatch):
    """Plays the scripts."""
    stage = Stage()
    monkeypatch.setattr(cell_run, "run_process", stage)
    monkeypatch.setattr(runs, "_LOOK_EVERY", 0.01)
    return stage


@pytest.fixture
def setting(tmp_path):
    """The made-up study in a folder of its own."""
    study = read_study(write_study(tmp_path, {"judge_pseudo_labels": True}))
    return Setting(study, tmp_path, tmp_path, tmp_path / "runs", 1)
