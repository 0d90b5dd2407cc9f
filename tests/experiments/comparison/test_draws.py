"""Two made-up draws of two photos each, put together by hand."""

import math

import pytest

from experiments.comparison.draws import read_draws, together
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import draw, save_cells, write_study

OWN, BASE, UPPER = ("v3", "four"), ("supervised", "four"), ("supervised", "all")


@pytest.fixture
def study(tmp_path):
    return read_study(write_study(tmp_path))


@pytest.fixture
def draws():
    """Gains 0.1 and 0.3, gaps 0.3 and 0.5; the fewer photos as in the comments of the tests."""
    return {
        "one": draw(
            base=(0.3, {"a": 0.2, "b": 0.4}),
            own=(0.4, {"a": 0.3, "b": 0.4}),
            upper=(0.6, {"a": 0.6, "b": 0.6}),
        ),
        "two": draw(
            base=(0.2, {"c": 0.2, "d": 0.2}),
            own=(0.5, {"c": 0.4, "d": 0.6}),
            upper=(0.7, {"c": 0.8, "d": 0.6}),
        ),
    }


def test_gains_by_hand(draws):
    found = together(draws, OWN, BASE, UPPER)
    assert found.gain == pytest.approx(0.2)
    # On a 0.1, on b 0, on c 0.2, on d 0.4; of two images the error is half of the distance.
    assert found.photo_error == pytest.approx(math.hypot(0.05, 0.1) / 2)
    # The deviation of 0.1 and 0.3 is 0.2 / sqrt 2.
    assert found.draw_error == pytest.approx(0.1)


def test_the_share_of_the_gap_by_hand(draws):
    found = together(draws, OWN, BASE, UPPER)
    assert found.closed == pytest.approx(0.4 / 0.8)
    # Without a, b, c and d, with the other draw as it is.
    without = [(0 + 0.3) / (0.2 + 0.5), (0.1 + 0.3) / (0.4 + 0.5)]
    without += [(0.1 + 0.4) / (0.3 + 0.4), (0.1 + 0.2) / (0.3 + 0.6)]
    expected = math.hypot((without[1] - without[0]) / 2, (without[3] - without[2]) / 2)
    assert found.closed_error == pytest.approx(expected)


def test_without_an_upper_bound_there_is_no_share(draws):
    found = together(draws, OWN, BASE, None)
    assert found.gain == pytest.approx(0.2)
    assert math.isnan(found.closed)
    assert math.isnan(found.closed_error)


def test_the_errors_are_not_known_where_one_draw_keeps_no_photos(draws):
    for result in draws["two"]:
        result["confusions"] = None
    found = together(draws, OWN, BASE, UPPER)
    assert found.gain == pytest.approx(0.2)
    assert math.isnan(found.photo_error)
    assert math.isnan(found.closed_error)


def test_reads_what_compare_has_left(study, draws, tmp_path):
    folders = [save_cells(tmp_path / name, results) for name, results in draws.items()]
    read = read_draws(study, folders)
    assert list(read) == [folder.as_posix() for folder in folders]
    assert together(read, OWN, BASE, UPPER) == together(draws, OWN, BASE, UPPER)


def test_one_draw_is_refused(study, tmp_path):
    draws = [draw(base=(0.3, {"a": 0.2})), draw(own=(0.4, {"a": 0.4}))]
    folders = [save_cells(tmp_path / f"{n}", results) for n, results in enumerate(draws)]
    for some in (folders[:1], folders):
        with pytest.raises(ValueError, match="at least two draws"):
            read_draws(study, some)


def test_folders_with_the_same_photos_are_one_draw(study, draws, tmp_path):
    base, *others = draws["one"]
    parts = {"one": [base], "two": draws["two"], "rest": others}
    folders = [save_cells(tmp_path / name, results) for name, results in parts.items()]
    read = read_draws(study, folders)
    assert list(read) == [folder.as_posix() for folder in folders[:2]]
    assert together(read, OWN, BASE, UPPER) == together(draws, OWN, BASE, UPPER)


def test_a_cell_given_twice_is_refused(study, draws, tmp_path):
    folder = save_cells(tmp_path / "one", draws["one"])
    other = save_cells(tmp_path / "other", draws["one"][1:2])
    for second, cell in ((folder, "supervised/four"), (other, "v3/four")):
        words = f"{cell}/seed_0 is in both .*one and .*{second.name}"
        with pytest.raises(ValueError, match=words):
            read_draws(study, [folder, second])


def test_two_lists_of_one_name_are_refused(study, draws, tmp_path):
    first = save_cells(tmp_path / "one", draws["one"][:1])
    draws["one"][1]["identity"]["labeled"] = ["y.jpg"]
    second = save_cells(tmp_path / "other", draws["one"][1:])
    third = save_cells(tmp_path / "two", draws["two"])
    with pytest.raises(ValueError, match=r"cells of .*one have two lists named four"):
        read_draws(study, [first, second, third])


def test_a_folder_without_cells_is_refused(study, draws, tmp_path):
    folder = save_cells(tmp_path / "one", draws["one"])
    with pytest.raises(ValueError, match=r"nothing has no finished cell of the study, such as"):
        read_draws(study, [folder, tmp_path / "nothing"])


def test_a_photo_judged_in_two_draws_is_refused(study, draws, tmp_path):
    draws["two"][0]["identity"]["validation"].append("a.jpg")
    folders = [save_cells(tmp_path / name, results) for name, results in draws.items()]
    with pytest.raises(ValueError, match=r"a\.jpg is a validation photo of both .*one and .*two"):
        read_draws(study, folders)


def test_another_way_of_training_is_refused(study, draws, tmp_path):
    draws["two"][1]["identity"]["flags"] = {"st-loss-weight": "--st-loss-weight 2"}
    folders = [save_cells(tmp_path / name, results) for name, results in draws.items()]
    expected = (
        r"one/v3/four/seed_0 was made with no --st-loss-weight instead of --st-loss-weight 2 of"
    )
    with pytest.raises(ValueError, match=expected):
        read_draws(study, folders)


def test_another_budget_is_refused(study, draws, tmp_path):
    draws["two"][0]["budget"] = {**draws["two"][0]["budget"], "num-steps": 21}
    folders = [save_cells(tmp_path / name, results) for name, results in draws.items()]
    with pytest.raises(ValueError, match=r"--num-steps is 20 for .* but 21 for"):
        read_draws(study, folders)
