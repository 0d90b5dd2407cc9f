"""The page of two made-up draws."""

import pytest

from experiments.comparison.draws_page import draws_page
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import draw, write_study


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


@pytest.fixture
def draws():
    scores = {"a": 0.2, "b": 0.4}
    first = draw(base=(0.3, scores), own=(0.4, {"a": 0.3, "b": 0.4}), upper=(0.6, scores))
    second = draw(base=(0.2, {"c": 0.2}), own=(0.5, {"c": 0.4}), upper=(0.7, {"c": 0.8}))
    return {"runs/one": first, "runs/two": second}


def rows(page):
    return [line for line in page.splitlines() if line.startswith("| ")]


def test_tables_by_hand(study, draws):
    page = draws_page(study, draws)
    assert "## v3, four" in page
    # Of the upper bound without a photo as of the baseline: no gap, and no error of the share.
    assert rows(page)[2:] == [
        "| runs/one | 2 | 1 | 0.300 | 0.400 | 0.600 | +0.100 ± 0.050 | 33 % |",
        "| runs/two | 1 | 1 | 0.200 | 0.500 | 0.700 | +0.300 | 60 % |",
        "| all draws | 3 |  | 0.250 | 0.450 | 0.650 | +0.200 | 50 % |",
    ]
    assert "Error of the gain over the draws: 0.100." in page


def test_gains_over_one_list(tmp_path, draws):
    baseline = {"recipe": "supervised", "list": "four"}
    study = read_study(write_study(tmp_path, {"baseline": baseline}))
    for results in draws.values():
        results[1] |= {"recipe": "supervised", "list": "eight"}
    page = draws_page(study, draws)
    assert page.count("## ") == 1 and "## supervised, eight" in page
    assert rows(page)[0] == (
        "| draw | photos | seeds | supervised, four | supervised, eight | upper bound | gain | "
        "share of the gap closed |"
    )
    assert rows(page)[2] == "| runs/one | 2 | 1 | 0.300 | 0.400 | 0.600 | +0.100 ± 0.050 | 33 % |"


def test_without_an_upper_bound_in_every_draw_there_is_none(study, draws):
    draws["runs/two"] = [cell for cell in draws["runs/two"] if cell["list"] != "all"]
    assert rows(draws_page(study, draws))[-1].endswith("| 0.250 | 0.450 | - | +0.200 | - |")


def test_a_recipe_that_one_draw_lacks_has_no_table(study, draws):
    draws["runs/two"] = [cell for cell in draws["runs/two"] if cell["recipe"] != "v3"]
    with pytest.raises(ValueError, match="no recipe beside supervised has a cell of one list"):
        draws_page(study, draws)
