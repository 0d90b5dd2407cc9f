"""Reading the folder of a run."""

import math

import numpy as np
import pytest
import torch

from ignite_salak.report.run import Series, read_run

SERIES = Series(np.array([10, 20, 30, 40]), np.array([0.3, 0.5, math.nan, 0.5]))


def test_series_at_until_and_best():
    assert SERIES.at(20) == 0.5
    assert SERIES.at(25) is None
    assert SERIES.at(None) is None
    assert SERIES.until(19) == 0.3
    assert SERIES.until(9) is None
    assert SERIES.until(None) is None
    assert (SERIES.best(), SERIES.best(15), SERIES.best(5), Series().best()) == (20, 10, None, None)


def test_everything_is_read(folder, runs):
    run = read_run(folder)
    assert (run.name, run.iteration, run.total, run.state) == ("a run", 3000, 3000, "completed")
    assert run.classes.names == runs.names
    assert run.series("validation/mIoU").iterations.tolist() == list(range(500, 3001, 500))
    assert run.series("loss").values[0] == pytest.approx(runs.history()[0]["loss"])
    assert run.series("nothing").values.tolist() == []
    assert run.best == 3000
    assert run.confusion().confusion[1].tolist() == [7, 1000, 7, 7, 7, 7, 7]
    assert run.confusion().confusion.dtype == torch.int64
    assert [(w.iteration, w.text) for w in run.summary.warnings] == [
        (2000, "gap 0.11 is above 0.10")
    ]
    assert {kind: list(files) for kind, files in run.panels.items()} == {
        "validation": [2500, 3000],
        "unlabeled": [3000],
    }


def test_a_run_from_before_there_was_a_summary(tmp_path, runs):
    folder = tmp_path / "old"
    runs.write(folder, config=runs.config(), history=runs.history(total=2000))
    run = read_run(folder)
    assert (run.state, run.confusion(), run.panels) == ("unknown", None, {})
    runs.write(folder, history=runs.history())
    assert read_run(folder).state == "completed"


def test_empty_cells_are_left_out_and_nan_is_kept(tmp_path, runs):
    rows = [{"iteration": 1, "loss": math.nan, "ce": ""}, {"iteration": 2, "loss": 1.0, "ce": 2.0}]
    run = read_run(runs.write(tmp_path, config=runs.config(), history=rows))
    assert run.series("ce").iterations.tolist() == [2]
    assert math.isnan(run.series("loss").values[0])


def test_of_scores_that_history_rounds_to_one_the_summary_knows_the_best(tmp_path, runs):
    rows = [{"iteration": i, "validation/mIoU": 0.5} for i in (1, 2)]
    summary = runs.summary(7, 2, 2)
    run = read_run(runs.write(tmp_path, config=runs.config(), history=rows, summary=summary))
    assert run.best == 2
    rows[0]["validation/mIoU"] = 0.6  # the summary is older than the history
    run = read_run(runs.write(tmp_path, history=rows))
    assert run.best == 1
    assert run.confusion().iteration == 2


def test_a_folder_that_is_no_run(tmp_path, runs):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist.*not the folder of"):
        read_run(tmp_path)
    runs.write(tmp_path, config=runs.config())
    with pytest.raises(FileNotFoundError, match=r"history\.csv does not exist.*logged nothing"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", r"config\.json cannot be used.*restore it"),
        ("config.json", b"\xff\xfe", r"config\.json cannot be used.*restore it"),
        ("config.json", b"[]", r"config\.json cannot be used: it holds no mapping"),
        ("config.json", b"{}", r"config\.json cannot be used: KeyError 'classes'"),
        ("history.csv", b"", "it has no row"),
        ("history.csv", b"iteration,loss\n", "it has no row"),
        ("history.csv", b"loss\n1\n", "row 1"),
        ("history.csv", b"iteration,loss\n1,2\n2,many\n", "row 2.*many"),
        ("history.csv", b"iteration,loss\n1,2,3\n", "row 1"),
        ("history.csv", b"iteration,loss\n1\n", "row 1"),
        ("history.csv", b"iteration,loss\n2,1\n2,1\n", "row 2: the iteration does not rise"),
        ("history.csv", b"iteration,loss\n\xff,1\n", r"history\.csv cannot be used"),
        ("history.csv", b'iteration,"loss\n1,1\n', r"history\.csv cannot be used"),
        ("summary.json", b"{", r"summary\.json cannot be used"),
        ("summary.json", b"{}", r"summary\.json cannot be used: KeyError 'state'; delete it"),
    ],
)
def test_a_damaged_file_is_named(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_run(folder)


def test_a_summary_of_other_classes_is_damaged(folder, runs):
    runs.write(folder, summary=runs.summary(3, 3000, 3000))
    with pytest.raises(ValueError, match=r"shape \[3, 3\] for 7 classes; delete it"):
        read_run(folder)
