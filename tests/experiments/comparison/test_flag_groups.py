"""Command lines by flag."""

import pytest

from experiments.comparison.flag_groups import by_flag


def test_flags_are_grouped_by_name():
    tokens = ["--a_b=1=2", "--no-c", "--d", "0.5", "-2"]
    groups = {"a-b": ("--a-b", "1=2"), "c": ("--no-c",), "d": ("--d", "0.5", "-2")}
    assert by_flag(tokens, "here") == groups


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["8"], "here: '8' belongs to no flag; flags begin with --"),
        (["--batch-size", 8], "here: 8 is no string; put it into quotation marks"),
        (["--pretrained", "--no-pretrained"], "here: --pretrained is there twice"),
        (["--a_b=1", "--a-b=1"], "here: --a-b is there twice"),
    ],
)
def test_what_is_no_command_line_is_refused(tokens, words):
    with pytest.raises(ValueError) as caught:
        by_flag(tokens, "here")
    assert str(caught.value) == words
