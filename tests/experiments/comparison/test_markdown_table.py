"""Tables and numbers, by hand."""

import math

import pytest

from experiments.comparison.markdown_table import decimal, markdown_table, percent, with_error


def test_the_first_column_stands_to_the_left():
    assert markdown_table(["a", "b"], [["c", "1"]]) == "| a | b |\n| --- | --: |\n| c | 1 |"


def test_bars_do_not_break_a_table():
    assert markdown_table(["a|b"], [["c"]]) == "| a/b |\n| --- |\n| c |"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (decimal(0.12345), "0.123"),
        (decimal(0.12345, 1, "+"), "+0.1"),
        (decimal(math.nan), "-"),
        (percent(0.456), "46 %"),
        (percent(math.nan), "-"),
        (with_error("0.5", "0.1"), "0.5 ± 0.1"),
        (with_error("0.5", "-"), "0.5"),
    ],
)
def test_numbers(text, expected):
    assert text == expected
