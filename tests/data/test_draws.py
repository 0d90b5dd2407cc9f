"""Every photo once, equal sizes, runs of neighbours, like shares."""

import numpy as np
import pytest

from ignite_salak.data.draws import (
    class_shares,
    representative_sources,
    share_distance,
    validation_draws,
)
from tests.data.indexes import make_index


@pytest.fixture
def index(tmp_path):
    """Two flights of 10 and 7 photos; the last photo of each is left out by the tests."""
    return make_index(
        tmp_path,
        {
            "f1": {f"DJI_{number}": "m" for number in range(95, 105)},
            "f2": {f"DJI_{number}": "m" for number in range(1, 8)},
        },
    )


SOURCES = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15])


@pytest.fixture
def totals():
    """Class 1 is rare: it stands in photos 0, 1 and 2 of the first flight alone."""
    pixels = np.full((17, 2), [100, 0])
    pixels[:3] = [70, 30]
    return pixels


@pytest.mark.parametrize("overlapping", [True, False])
@pytest.mark.parametrize("draws", [2, 3, 4, 15])
def test_every_photo_is_judged_once_and_draws_are_of_one_size(index, totals, draws, overlapping):
    found = validation_draws(index, totals, SOURCES, draws, seed=0, overlapping=overlapping)
    assert sorted(np.concatenate(found).tolist()) == SOURCES.tolist()
    sizes = {len(each) for each in found}
    assert sizes <= {len(SOURCES) // draws, -(-len(SOURCES) // draws)}
    assert all((np.diff(each) > 0).all() for each in found)


@pytest.mark.parametrize("seed", range(4))
def test_overlapping_photos_are_judged_by_runs_of_neighbours(index, totals, seed):
    for each in validation_draws(index, totals, SOURCES, 3, seed=seed):
        for flight in (each[each < 10], each[each >= 10]):
            assert len(flight) in (2, 3)
            assert (np.diff(flight) == 1).all()


def test_a_rare_class_comes_into_every_draw_where_photos_do_not_overlap(index, totals):
    shares = class_shares(totals, SOURCES)
    assert shares == pytest.approx([1 - 90 / 1500, 90 / 1500])
    found = validation_draws(index, totals, SOURCES, 3, seed=0, overlapping=False)
    for each in found:
        assert share_distance(totals, each, shares) == pytest.approx(0)


def test_runs_are_those_of_the_closest_shares(index):
    # Each flight shows class 1 in a third of its run: draws are alike only if no draw has both.
    totals = np.full((17, 2), [100, 0])
    totals[[0, 1, 2]] = [0, 100]  # a run of the first flight
    totals[[14, 15]] = [0, 100]  # a run of the second
    found = validation_draws(index, totals, SOURCES, 3, seed=0)
    rare = sorted(int(totals[each, 1].sum()) for each in found)
    assert rare == [0, 200, 300]


def test_a_seed_draws_the_same_again_and_another_seed_another(index, totals):
    draws = [
        [each.tolist() for each in validation_draws(index, totals, SOURCES, 3, seed=seed)]
        for seed in (0, 0, 1, 2, 3)
    ]
    assert draws[0] == draws[1]
    assert any(each != draws[0] for each in draws[2:])


@pytest.mark.parametrize(
    ("draws", "words"), [(1, "--draws 1 is not at least 2"), (16, "only 15 photos have masks")]
)
def test_refusals(index, totals, draws, words):
    with pytest.raises(ValueError, match=words):
        validation_draws(index, totals, SOURCES, draws, seed=0)


def test_labelled_photos_show_the_classes_as_all_do(totals):
    shares = class_shares(totals, SOURCES)  # 6 %; one of five photos with it has 6 %
    found = representative_sources(totals, SOURCES, 5, shares, seed=0)
    assert (found < 3).sum() == 1
    assert len(set(found.tolist()) & set(SOURCES.tolist())) == 5


@pytest.mark.parametrize("size", [0, 16])
def test_more_than_there_are_or_none_are_refused(totals, size):
    with pytest.raises(ValueError, match=f"--labeled {size} is not between 1 and the 15 photos"):
        representative_sources(totals, SOURCES, size, np.array([0.5, 0.5]), seed=0)


def test_photos_without_a_pixel_have_no_shares():
    assert class_shares(np.zeros((2, 3), dtype=np.int64), np.array([0, 1])).tolist() == [0, 0, 0]
