"""What must be equal of all recipes."""

import pytest

from experiments.comparison.budget import budget, check_equal_budgets
from experiments.comparison.study_file import read_study
from tests.experiments.comparison.made_up import write_study


def test_budgets_that_differ_by_a_default_are_named(tmp_path):
    study = read_study(write_study(tmp_path))
    first = budget(study.options(study.recipes["supervised"]))
    assert first["num-steps"] == 20
    assert first["random-scale-range"] == [0.75, 1.5]
    check_equal_budgets({"a": first, "b": dict(first)})
    with pytest.raises(ValueError, match="--num-steps is 20 for 'a' but 30 for 'b'"):
        check_equal_budgets({"a": first, "b": {**first, "num-steps": 30}})
