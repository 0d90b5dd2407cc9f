"""The page and the CSV rows of made-up cells."""

import math

import pytest

from experiments.comparison.study_file import read_study
from experiments.comparison.tables import cell_rows, markdown, summary_rows
from tests.experiments.comparison.made_up import confusions, made_up, write_study


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


@pytest.fixture
def results():
    quality = {"precision": 0.8, "kept_share": 0.75}
    return [
        *(made_up("supervised", "four", seed, last, 0.55) for seed, last in enumerate((0.5, 0.52))),
        made_up("v3", "four", 0, 0.53, st_px=1000.0, pseudo_labels=quality),
        made_up("v3", "four", 1, 0.57, st_px=3000.0, pseudo_labels=quality),
        made_up("small", "four", 0, 0.4),
        made_up("supervised", "all", 0, 0.6),
        made_up("supervised", "all", 1, 0.64),
    ]


def line(page, start, occurrence=0):
    lines = [line for line in page.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in lines[occurrence].strip("|").split("|")]


def test_score_table_by_hand(study, results):
    page = markdown(study, study.cells(), results, "COMMAND")
    assert line(page, "| recipe |")[4:6] == ["palm", "road"]
    assert line(page, "| supervised |") == [
        *("supervised", "2", "0.510 ± 0.014", "0.550 ± 0.000", "0.610", "0.410"),
        *("-", "-", "-", "-", "30.0"),
    ]
    assert line(page, "| v3 |") == [
        *("v3", "2", "0.550 ± 0.028", "0.550 ± 0.028", "0.650", "0.450"),
        *("2,000", "80 %", "75 %", "-", "30.0"),
    ]
    assert line(page, "| upper bound")[:3] == ["upper bound: supervised, all", "2", "0.620 ± 0.028"]


def test_gain_table_by_hand(study, results):
    # v3: differences 0.03 and 0.05, mean 0.04, error 0.01; (0.55 - 0.51) / (0.62 - 0.51) = 36 %.
    page = markdown(study, study.cells(), results, "COMMAND")
    assert line(page, "| v3 |", 1) == [
        "v3",
        "+0.040",
        "0.010",
        "-",
        "0: +0.030, 1: +0.050",
        "yes",
        "36 %",
    ]
    assert line(page, "| small |", 1)[1:] == [
        *("-0.100", "-", "-", "0: -0.100", "one seed", "-100 %")
    ]
    assert line(page, "| upper bound", 1)[-1] == "100 %"


def test_gains_over_one_list(tmp_path, results):
    baseline = {"recipe": "supervised", "list": "four"}
    study = read_study(write_study(tmp_path, {"baseline": baseline}))
    results += [made_up("supervised", "eight", seed, 0.55) for seed in (0, 1)]
    page = markdown(study, study.cells(), results, "COMMAND")
    assert page.count("### Gain over supervised, four\n") == 2
    four, eight = page.split("## eight")
    assert line(four, "| v3 |", 1)[1] == "+0.040"
    assert "| supervised |" not in four.split("### Gain")[1]
    # 0.05 and 0.03 over that of four; (0.55 - 0.51) / (0.62 - 0.51) = 36 %.
    assert line(eight, "| supervised |", 1) == [
        *("supervised", "+0.040", "0.010", "-", "0: +0.050, 1: +0.030", "yes", "36 %")
    ]
    head, *rows = summary_rows(study, results)
    gains = {(row[0], row[1]): row[head.index("gain")] for row in rows}
    assert gains["eight", "supervised"] == pytest.approx(0.04)
    assert gains["four", "supervised"] == 0


def test_errors_of_the_photos_are_shown_where_cells_keep_them(study):
    kept = {
        ("supervised", "four"): confusions(a=0.2, b=0.4),
        ("v3", "four"): confusions(a=0.4, b=0.4),
        ("supervised", "all"): confusions(a=0.6, b=0.6),
    }
    results = [made_up(*line, 0, 0.4, confusions=photos) for line, photos in kept.items()]
    results[1]["last"]["mIoU"], results[2]["last"]["mIoU"] = 0.5, 0.6
    # Without a or b: gains 0 and 0.2, shares 0 and 0.5.
    page = markdown(study, study.cells(), results, "COMMAND")
    found = line(page, "| v3 |", 1)
    assert [found[1], found[3], found[-1]] == ["+0.100", "0.100", "50 % ± 25 %"]
    head, *rows = summary_rows(study, results)
    values = dict(zip(head, rows[1], strict=True))
    assert values["gain_photo_error"] == pytest.approx(0.1)
    assert values["closed_share_error"] == pytest.approx(0.25)


def test_the_page_says_what_is_missing_and_how_it_was_made(study, results):
    page = markdown(study, study.cells(), results, "COMMAND")
    assert "7 of 14 cells are finished." in page
    assert "supervised/four/seed_2" in page
    assert "v3/four/seed_0" not in page
    for words in ("`COMMAND`", "num-steps 20", "2026-11-23", "Commit: abc.", "2 CPUs, Linux"):
        assert words in page
    assert "made up" in page


def test_cells_of_two_processors_are_told_apart(study):
    places = [
        {"cpus": 2, "platform": "Linux", "processor": name, "cpu_capability": capability}
        for name, capability in (("Xeon", "AVX512"), ("EPYC", "AVX2"))
    ]
    results = [
        made_up("v3", "four", seed, 0.5, environment=place) for seed, place in enumerate(places)
    ]
    page = markdown(study, study.cells(), results, "COMMAND")
    assert "2 CPUs, Xeon, AVX512, Linux" in page
    assert "2 CPUs, EPYC, AVX2, Linux" in page


def test_a_cell_without_scores_is_left_out_of_the_means(study, results):
    broken = made_up("v3", "four", 2, None)
    page = markdown(study, study.cells(), [*results, broken], "COMMAND")
    assert line(page, "| v3 |")[1:3] == ["3", "0.550 ± 0.028"]


def test_csv_rows(study, results):
    head, *rows = summary_rows(study, results)
    values = dict(zip(head, rows[1], strict=True))
    assert (values["list"], values["recipe"], values["seeds"]) == ("four", "v3", 2)
    assert values["last mean"] == pytest.approx(0.55)
    assert values["IoU/road"] == pytest.approx(0.45)
    assert values["gain"] == pytest.approx(0.04)
    assert values["closed_share"] == pytest.approx(4 / 11)
    assert len(rows) == 4 + 3
    head, *rows = cell_rows(results)
    values = dict(zip(head, rows[2], strict=True))
    assert [values[name] for name in ("recipe", "seed", "last", "best_iteration")] == [
        *("v3", 0, 0.53, 10)
    ]
    assert math.isnan(dict(zip(head, rows[0], strict=True))["st_px"])
