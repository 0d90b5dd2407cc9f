"""Every edge mode and stride, by hand."""

import numpy as np
import pytest

from ignite_salak.data.grid import Grid, fill_up


@pytest.mark.parametrize(
    ("edge", "stride", "length", "expected"),
    [
        ("pad", 16, 16, [0]),
        ("pad", 16, 17, [0, 16]),
        ("pad", 16, 32, [0, 16]),
        ("pad", 16, 5, [0]),
        ("pad", 10, 16, [0]),
        ("pad", 10, 36, [0, 10, 20]),
        ("pad", 10, 37, [0, 10, 20, 30]),
        ("pad", 20, 36, [0, 20]),
        ("pad", 20, 37, [0, 20]),
        ("pad", 20, 41, [0, 20, 40]),
        ("drop", 16, 16, [0]),
        ("drop", 16, 15, []),
        ("drop", 16, 47, [0, 16]),
        ("drop", 10, 36, [0, 10, 20]),
        ("drop", 10, 37, [0, 10, 20]),
        ("shift", 16, 16, [0]),
        ("shift", 16, 17, [0, 1]),
        ("shift", 16, 47, [0, 16, 31]),
        ("shift", 10, 36, [0, 10, 20]),
        ("shift", 10, 37, [0, 10, 20, 21]),
        ("shift", 16, 5, [0]),
        ("shift", 20, 41, [0, 20, 25]),
    ],
)
def test_starts(edge, stride, length, expected):
    assert Grid(16, stride, edge).starts(length) == expected


@pytest.mark.parametrize("edge", ["pad", "drop", "shift"])
@pytest.mark.parametrize("stride", [7, 16, 23])
def test_what_the_modes_promise(edge, stride):
    for length in range(1, 100):
        starts = Grid(16, stride, edge).starts(length)
        assert starts == sorted(set(starts))
        assert all(start < length for start in starts)
        ends = [start + 16 for start in starts]
        if edge == "drop" or (edge == "shift" and length >= 16):
            assert all(end <= length for end in ends)
        if edge != "drop" and stride <= 16:
            covered = {x for start in starts for x in range(start, start + 16)}
            assert covered >= set(range(length))


def test_count():
    assert Grid(16, 16).count(40, 56) == 3 * 4
    assert Grid(16, 16, "drop").count(40, 15) == 0


def test_fill_up():
    pixels = np.arange(1, 7).reshape(2, 3)
    assert fill_up(pixels, 3, 9).tolist() == [[1, 2, 3], [4, 5, 6], [9, 9, 9]]
    assert fill_up(np.ones((1, 2, 3), np.uint8), 2, 0).sum(axis=2).tolist() == [[3, 3], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((15, 15), "--patch-size 15 is not at least 16"),
        ((16, 0), "--stride 0"),
        ((16, 16, "cut"), "--edge 'cut' is none of pad, drop, shift"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid(*arguments)
