"""Means, paired errors and shares, by hand."""

import math
from dataclasses import replace

import pytest

from experiments.comparison.statistics import (
    by_seed,
    closed_share,
    compare,
    gain,
    judged_alone,
    spread,
)
from tests.experiments.comparison.made_up import confusions, made_up


def test_spread_by_hand():
    found = spread([0.5, 0.6, math.nan, 0.7])
    assert (found.n, found.mean, found.std) == (3, pytest.approx(0.6), pytest.approx(0.1))
    assert found.text() == "0.600 ± 0.100"


def test_one_value_has_no_deviation_and_none_no_mean():
    assert spread([0.5]).text() == "0.500"
    assert math.isnan(spread([0.5]).std)
    assert spread([]).text() == "-"
    assert math.isnan(spread([math.nan]).mean)


def test_gain_is_paired_by_seed():
    # Differences 0.02, 0.04, 0.03: mean 0.03, deviation 0.01, error 0.01 / sqrt 3.
    own = {0: 0.52, 1: 0.64, 2: 0.43, 7: 0.9}
    base = {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.1}
    found = gain(own, base)
    assert list(found.by_seed) == [0, 1, 2]
    assert found.mean == pytest.approx(0.03)
    assert found.error == pytest.approx(0.01 / math.sqrt(3))
    assert found.is_clear
    assert found.verdict() == "yes"


def test_a_gain_must_be_positive_for_every_seed_and_above_two_errors():
    base = dict.fromkeys(range(10), 0.5)
    one_below = gain({**dict.fromkeys(range(9), 0.6), 9: 0.499}, base)
    assert one_below.mean > 2 * one_below.error
    assert not one_below.is_clear
    assert one_below.verdict().startswith("no: 9 of 10 seeds, ")
    wide = gain({0: 0.501, 1: 0.6}, base)  # mean 0.0505, error 0.0495
    assert min(wide.by_seed.values()) > 0
    assert wide.verdict() == "no: 2 of 2 seeds, 1.0 standard errors"


def test_gain_of_one_seed_and_of_none():
    one = gain({0: 0.6}, {0: 0.5})
    assert one.mean == pytest.approx(0.1)
    assert math.isnan(one.error)
    assert (one.is_clear, one.verdict()) == (False, "one seed")
    assert gain({0: math.nan}, {0: 0.5}).verdict() == "no seed in common"
    assert math.isnan(gain({1: 0.5}, {0: 0.5}).mean)


def test_no_spread_at_all_is_no_division_by_zero():
    assert gain({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}).verdict() == "no: 0 of 2 seeds, no spread"


def test_closed_share_over_the_seeds_that_all_have():
    # Seeds 0 and 1: means 0.56, 0.52, 0.60.
    own = {0: 0.55, 1: 0.57, 2: 0.99}
    base = {0: 0.51, 1: 0.53, 2: 0.1}
    upper = {0: 0.61, 1: 0.59}
    assert closed_share(own, base, upper) == pytest.approx(0.5)
    assert closed_share(upper, base, upper) == pytest.approx(1.0)


def test_no_gap_has_no_share():
    assert math.isnan(closed_share({0: 0.6}, {0: 0.5}, {0: 0.5}))
    assert math.isnan(closed_share({0: 0.6}, {0: 0.5}, {}))
    assert math.isnan(closed_share({0: math.nan}, {0: 0.5}, {0: 0.6}))


def test_scores_by_seed():
    results = [made_up("v3", "four", 1, 0.4), made_up("v3", "eight", 1, 0.5)]
    assert by_seed(results, ("v3", "four")) == {1: 0.4}


# A photo's score is its mIoU alone, so a set of two without one of them has the other's.


def test_scores_without_a_photo():
    results = [
        made_up("v3", "four", 0, 0.4, confusions=confusions(a=0.2, b=0.8)),
        made_up("v3", "four", 1, 0.4),
    ]
    found = by_seed(results, ("v3", "four"), "a")
    assert found[0] == pytest.approx(0.8)
    assert math.isnan(found[1])


@pytest.fixture
def two_seeds():
    """Gains on photo a: 0.1 and 0.3, on b: 0 and 0.2; of the gap on a 2/4 is closed, on b 1/2."""
    photos = {
        "base": [{"a": 0.2, "b": 0.4}, {"a": 0.2, "b": 0.4}],
        "own": [{"a": 0.3, "b": 0.4}, {"a": 0.5, "b": 0.6}],
        "upper": [{"a": 0.6, "b": 0.6}, {"a": 0.6, "b": 0.6}],
    }
    scores = {"base": (0.3, 0.3), "own": (0.4, 0.5), "upper": (0.6, 0.6)}
    return [
        made_up(name, "four", seed, scores[name][seed], confusions=confusions(**each))
        for name, seeds in photos.items()
        for seed, each in enumerate(seeds)
    ]


LINES = [(name, "four") for name in ("own", "base", "upper")]


def test_errors_over_photos_by_hand(two_seeds):
    # Of two images the error is half of the distance: |0.2 - 0.1| / 2, |0.2/0.4 - 0.1/0.2| / 2.
    found = compare(two_seeds, *LINES)
    assert found.gain.mean == pytest.approx(0.15)
    assert found.gain.photo_error == pytest.approx(0.05)
    assert found.closed == pytest.approx(0.5)
    assert found.closed_error == pytest.approx(0.0)


def test_errors_over_photos_are_those_of_the_seeds_that_keep_them(two_seeds):
    del two_seeds[1]["confusions"]  # the baseline's, with seed 1
    found = compare(two_seeds, *LINES)
    assert list(found.gain.by_seed) == [0, 1]
    assert found.gain.photo_error == pytest.approx(abs(0.1 - 0.0) / 2)


@pytest.mark.parametrize("photos", [None, confusions(a=0.5)])
def test_cells_without_photos_or_of_one_have_no_such_error(photos):
    results = [
        made_up(name, "four", 0, 0.5, confusions=photos) for name in ("own", "base", "upper")
    ]
    found = compare(results, *LINES)
    assert math.isnan(found.gain.photo_error)
    assert math.isnan(found.closed_error)


def test_a_gain_must_be_above_two_errors_of_the_photos_too():
    clear = gain({0: 0.6, 1: 0.61}, {0: 0.5, 1: 0.5})
    assert replace(clear, photo_error=0.05).is_clear
    doubtful = replace(clear, photo_error=0.07)
    assert not doubtful.is_clear
    assert doubtful.verdict() == (
        "no: 2 of 2 seeds, 21.0 standard errors of the seeds, 1.5 standard errors of the photos"
    )


def test_photos_are_those_of_which_some_cell_keeps_a_matrix():
    kept = made_up("v3", "four", 0, 0.4, confusions=confusions(b=0.2, a=0.8))
    assert judged_alone([made_up("v3", "four", 1, 0.4), kept]) == ["a", "b"]
