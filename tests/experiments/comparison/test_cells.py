"""How far a cell is, and what its files say."""

import json
import math
import os

import pytest

from experiments.comparison.cells import (
    Standing,
    collect,
    last_error,
    number,
    read_history,
    read_judgement,
    read_result,
    stand,
    write_progress,
)
from tests.experiments.comparison.made_up import CLASSES

IDENTITY = {"script": "train_v3", "flags": {"num-steps": "--num-steps 20"}, "seed": 3}
OTHER = {**IDENTITY, "flags": {"num-steps": "--num-steps 30"}}
# Rows are the truth; palm: 6 right of 6 + 2 + 2, road: 3 of 3 + 2 + 5.
CONFUSION = [[10, 0, 3], [0, 6, 2], [0, 2, 3]]
HISTORY = """\
iteration,loss,st_px,validation/mIoU
5,1.5,10,
10,1.2,20,0.25
20,1.1,,0.45
"""


def save(folder, name, content):
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


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


def gather(folder, **judgement):
    return collect(
        folder,
        recipe="v3",
        listing="four",
        identity=IDENTITY,
        budget={"num-steps": 20},
        flags=["--seed", "3"],
        seconds=90.0,
        judgement=judgement,
    )


def test_a_result_is_what_the_run_left(trained):
    write_progress(trained, IDENTITY, 90.0, None)
    result = gather(trained)
    assert result == read_result(trained)
    assert result["last"]["iteration"] == 20
    assert number(result, "last", "IoU", "palm") == pytest.approx(0.6)
    assert number(result, "last", "IoU", "road") == pytest.approx(0.3)
    assert number(result, "last", "mIoU") == pytest.approx(0.45)
    assert math.isnan(number(result, "best", "mIoU"))
    assert result["curve"] == [[10, 0.25], [20, 0.45]]
    assert (result["st_px"], result["minutes"], result["seed"]) == (20, 1.5, 3)
    assert result["environment"] == {"platform": "Linux"}
    assert not (trained / "cell_progress.json").exists()


def test_an_absent_class_is_none_in_the_file_and_nan_for_tables(trained):
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    summary["last"]["confusion"] = [[10, 0, 0], [0, 6, 0], [0, 0, 0]]
    save(trained, "summary.json", summary)
    result = gather(trained)
    assert result["last"]["IoU"]["road"] is None
    assert math.isnan(number(result, "last", "IoU", "road"))
    assert number(result, "last", "mIoU") == 1.0


def test_standing_from_open_to_done(trained, tmp_path):
    assert stand(tmp_path / "none", IDENTITY, "cell") == Standing("open")
    write_progress(trained, IDENTITY, 12.0, None)
    assert stand(trained, IDENTITY, "cell") == Standing("begun", 20, 12.0, trained=True)
    (trained / "final_model.pth").unlink()
    assert stand(trained, IDENTITY, "cell") == Standing("begun", 20, 12.0)
    gather(trained)
    assert stand(trained, IDENTITY, "cell") == Standing("done", 20, 90.0, trained=True)


def test_an_interrupted_run_with_an_old_final_model_is_not_trained(trained):
    summary = json.loads((trained / "summary.json").read_text(encoding="utf-8"))
    save(trained, "summary.json", {**summary, "state": "interrupted"})
    write_progress(trained, IDENTITY, 12.0, None)
    assert not stand(trained, IDENTITY, "cell").trained


def test_a_living_process_makes_a_cell_busy_and_its_number_alone_does_not(tmp_path):
    write_progress(tmp_path, IDENTITY, 1.0, os.getpid())
    standing = stand(tmp_path, IDENTITY, "cell")
    assert (standing.state, standing.process) == ("busy", os.getpid())
    path = tmp_path / "cell_progress.json"
    progress = json.loads(path.read_text(encoding="utf-8"))
    progress["process"]["created"] -= 1000.0  # another process had the number
    save(tmp_path, path.name, progress)
    assert stand(tmp_path, IDENTITY, "cell").state == "begun"


def test_what_ran_on_after_the_call_was_killed_is_counted(trained):
    write_progress(trained, IDENTITY, 12.0, os.getpid())
    progress = json.loads((trained / "cell_progress.json").read_text(encoding="utf-8"))
    noted = progress["noted"]
    os.utime(trained / "history.csv", (noted + 30.0, noted + 30.0))
    assert stand(trained, IDENTITY, "cell").seconds == pytest.approx(42.0)
    os.utime(trained / "history.csv", (noted - 5.0, noted - 5.0))
    assert stand(trained, IDENTITY, "cell").seconds == 12.0


@pytest.mark.parametrize("done", [True, False])
def test_changed_flags_are_refused_with_both_values(trained, done):
    if done:
        gather(trained)
    else:
        write_progress(trained, IDENTITY, 1.0, None)
    with pytest.raises(ValueError) as caught:
        stand(trained, OTHER, "v3/four/seed_3")
    message = str(caught.value)
    assert "v3/four/seed_3 was made with --num-steps 20 instead of --num-steps 30" in message
    assert "--overwrite" in message


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "cell.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cell\.json is damaged"):
        stand(tmp_path, IDENTITY, "cell")
    with pytest.raises(ValueError, match="does not exist"):
        read_result(tmp_path / "none")


def test_the_judgement_of_pseudo_labels(tmp_path):
    palm = {"name": "palm", "precision": 0.9, "kept_share": 0.5, "threshold": 0.65, "kept": 5}
    every = {"name": "all classes", "precision": 0.8, "kept_share": 0.4, "threshold": None}
    content = {
        "scores": {"mIoU": 0.6},
        "patches": 12,
        "pseudo_labels": {"judged": [palm, every]},
    }
    save(tmp_path, "metrics.json", content)
    assert read_judgement(tmp_path, 30.0) == {
        "unlabeled": {"mIoU": 0.6, "patches": 12},
        "pseudo_labels": {
            "precision": 0.8,
            "kept_share": 0.4,
            "classes": {"palm": {"precision": 0.9, "kept_share": 0.5, "threshold": 0.65}},
        },
        "judging_minutes": 0.5,
    }


def test_numbers_and_histories_that_are_not_there(tmp_path):
    assert math.isnan(number({"a": None}, "a", "b"))
    assert math.isnan(number({}, "a"))
    assert read_history(tmp_path) == []


def test_the_line_of_a_log_that_says_why(tmp_path):
    log = tmp_path / "log.txt"
    assert last_error(log) == "there is no log"
    log.write_text("", encoding="utf-8")
    assert last_error(log) == "it said nothing"
    log.write_text("a\nKeyError: 'x'\n\n", encoding="utf-8")
    assert last_error(log) == "KeyError: 'x'"
    log.write_text("a\nerror: no mask\nbye\n", encoding="utf-8")
    assert last_error(log) == "error: no mask"
