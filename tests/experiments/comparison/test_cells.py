"""What the files of a cell say."""

import json
import math

import pytest

from experiments.comparison.cells import (
    last_error,
    number,
    read_confusions,
    read_history,
    read_pseudo_labels,
    read_result,
)
from experiments.comparison.standing import write_progress
from tests.experiments.comparison.made_up import IDENTITY, gather, save


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


def test_a_missing_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_result(tmp_path)
    (tmp_path / "cell.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cell\.json is damaged"):
        read_result(tmp_path)


def test_the_judgement_of_pseudo_labels(tmp_path):
    palm = {"name": "palm", "precision": 0.9, "kept_share": 0.5, "threshold": 0.65, "kept": 5}
    every = {"name": "all classes", "precision": 0.8, "kept_share": 0.4, "threshold": None}
    content = {
        "scores": {"mIoU": 0.6},
        "patches": 12,
        "pseudo_labels": {"judged": [palm, every]},
    }
    save(tmp_path, "metrics.json", content)
    assert read_pseudo_labels(tmp_path) == {
        "unlabeled": {"mIoU": 0.6, "patches": 12},
        "pseudo_labels": {
            "precision": 0.8,
            "kept_share": 0.4,
            "classes": {"palm": {"precision": 0.9, "kept_share": 0.5, "threshold": 0.65}},
        },
    }


def test_the_judgement_of_validation_photos(tmp_path):
    matrices = {"a": [[1, 0], [0, 1]]}
    save(tmp_path, "metrics.json", {"scores": {"mIoU": 0.6}, "confusions": matrices})
    assert read_confusions(tmp_path) == {"confusions": matrices}


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
