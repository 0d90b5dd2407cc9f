"""Scores as text and CSV."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from experiments.tables import (
    area_table,
    grid_table,
    plain,
    quality_table,
    score_table,
    text_table,
    write_confusion,
    write_csv,
    write_qualities,
)
from ignite_salak.inference.areas import ClassAreas
from ignite_salak.metrics import PseudoLabelQuality, scores_from_confusion

NAMES = ("background", "Snake Fruit", "road")


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def squeezed(line):
    return " ".join(line.split())


@pytest.fixture
def counts():
    metric = PseudoLabelQuality(NAMES)
    pred = torch.tensor([[[1, 1, 1, 1, 0]]])
    target = torch.tensor([[[1, 1, 2, 1, 0]]])
    confidence = torch.tensor([[[0.95, 0.75, 0.55, 0.35, 0.9]]])
    metric.update((pred, target, confidence, torch.ones(1, 1, 5).bool()))
    return metric.compute()


def test_first_column_left_others_right():
    table = text_table(["a", "number"], [["long name", "1"], ["b", "12,345"]])
    assert table.splitlines() == ["a          number", "long name       1", "b          12,345"]


def test_scores_of_classes_and_dashes_for_what_is_absent():
    confusion = torch.tensor([[6, 2, 0], [0, 2, 0], [0, 0, 0]])
    scores = scores_from_confusion(confusion, NAMES)
    band = scores_from_confusion(torch.eye(3).long(), NAMES)
    head, background, fruit, road = score_table(NAMES, scores, band, confusion).splitlines()
    assert squeezed(head) == "class IoU precision recall F1 of truth band IoU"
    assert squeezed(background) == "background 0.7500 1.0000 0.7500 0.8571 80.00 % 1.0000"
    assert squeezed(fruit) == "Snake Fruit 0.5000 0.5000 1.0000 0.6667 20.00 % 1.0000"
    assert squeezed(road) == "road - - - - 0.00 % 1.0000"


def test_confusion_as_counts_and_as_shares_of_the_true_class(tmp_path):
    write_confusion(tmp_path, NAMES, torch.tensor([[6, 2, 0], [0, 2, 1], [0, 0, 0]]))
    assert read(tmp_path / "confusion.csv") == [
        ["truth \\ prediction", *NAMES],
        ["background", "6", "2", "0"],
        ["Snake Fruit", "0", "2", "1"],
        ["road", "0", "0", "0"],
    ]
    assert read(tmp_path / "confusion_shares.csv")[1:] == [
        ["background", "0.750000", "0.250000", "0.000000"],
        ["Snake Fruit", "0.000000", "0.666667", "0.333333"],
        ["road", "", "", ""],
    ]


def test_qualities_at_the_thresholds_in_force(counts):
    head, fruit, road, everything = quality_table(counts.judge([0.5, 0.7, 0.5])).splitlines()
    assert head.split()[:4] == ["class", "threshold", "kept", "px"]
    assert squeezed(fruit) == "Snake Fruit 0.7 2 50.00 % 100.00 % 66.67 % 100.00 % 75.00 %"
    assert squeezed(road) == "road 0.5 0 - - 0.00 % 0.00 % 25.00 %"
    assert everything.split()[:3] == ["all", "classes", "2"]


def test_the_grid_shows_precision_and_kept_share(counts):
    head, fruit, *_ = grid_table(counts).splitlines()
    assert head.split()[1:] == [f"{step / 100:.2f}" for step in range(50, 100, 5)]
    assert fruit.split()[2:4] == ["67/75", "67/75"]  # 0.50 and 0.55
    assert fruit.split()[4] == "100/50"


def test_every_class_and_hundredth_is_written(counts, tmp_path):
    write_qualities(tmp_path / "q.csv", counts)
    head, *rows = read(tmp_path / "q.csv")
    assert head == ["class", "threshold", "kept_pixels", "kept_share", "precision", "recall"]
    assert [row[0] for row in rows[::100]] == ["Snake Fruit", "road", "all classes"]
    assert [row[1] for row in rows[:100]] == [f"{step / 100:.2f}" for step in range(100)]
    assert rows[40] == ["Snake Fruit", "0.40", "3", "0.750000", "0.666667", "0.666667"]
    assert rows[140] == ["road", "0.40", "0", "", "", "0.000000"]


def test_names_with_commas_and_letters_of_all_languages_survive(tmp_path):
    write_csv(tmp_path / "a.csv", [["a, b", "é"], [math.nan, 1]])
    assert read(tmp_path / "a.csv") == [["a, b", "é"], ["", "1"]]


def test_json_without_nan():
    values = plain({"a": [math.nan, 1.5, (2, "x")], "b": {"c": math.nan}})
    assert json.loads(json.dumps(values, allow_nan=False)) == {
        "a": [None, 1.5, [2, "x"]],
        "b": {"c": None},
    }


def test_areas_of_all_maps_have_hectares_where_all_maps_have():
    pixels = np.array([1000, 500, 0])
    known, unknown = ClassAreas(pixels, pixels / 1e4), ClassAreas(pixels, None)
    head, background, fruit, road = area_table(NAMES, [known, known]).splitlines()
    assert squeezed(head) == "class pixels share hectares"
    assert squeezed(background) == "background 2,000 66.67% 0.2000"
    assert squeezed(fruit) == "Snake Fruit 1,000 33.33% 0.1000"
    assert squeezed(road) == "road 0 0.00% 0.0000"
    assert squeezed(area_table(NAMES, [known, unknown])).startswith("class pixels share background")
