"""Means, paired errors and shares, by hand."""

import math

import pytest

from experiments.comparison.statistics import by_seed, closed_share, gain, spread
from tests.experiments.comparison.made_up import made_up


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
    assert by_seed(results, "v3", "four") == {1: 0.4}
