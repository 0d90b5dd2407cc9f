"""The two scaling rules, and when a hint is printed."""

import pytest

from experiments.learning_rate import learning_rate_hint, scaled_learning_rate


@pytest.mark.parametrize(
    ("batch", "optimizer", "rate"),
    [(4, "sgd", 1.25e-4), (16, "sgd", 5e-4), (2, "adamw", 1.25e-4), (32, "adamw", 5e-4)],
)
def test_linear_rule_of_sgd_and_square_root_rule_of_adamw(batch, optimizer, rate):
    assert scaled_learning_rate(2.5e-4, 8, batch, optimizer) == pytest.approx(rate)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_empty_batch_is_refused(optimizer):
    with pytest.raises(ValueError, match="--batch-size -4 is not at least 1"):
        learning_rate_hint(-4, 2.5e-4, optimizer=optimizer)


def test_hint_for_a_smaller_batch():
    assert learning_rate_hint(4, 2.5e-4) == (
        "hint: --learning-rate 0.00025 was made for --batch-size 8; for --batch-size 4, "
        "--learning-rate 0.000125 is the usual choice (linear rule). Or keep the recipe, in no "
        "more memory: --batch-size 8 --grad-accumulation 2"
    )


def test_hint_for_a_larger_batch_with_adamw():
    assert learning_rate_hint(16, 2.5e-4, optimizer="adamw") == (
        "hint: --learning-rate 0.00025 was made for --batch-size 8; for --batch-size 16, "
        "--learning-rate 0.000354 is the usual choice (square-root rule)"
    )


@pytest.mark.parametrize(
    ("batch", "parts", "ranks", "expected"),
    [
        (2, 1, 1, 4),
        (3, 1, 1, 4),  # 3 parts are not equal
        (6, 1, 1, 2),
        (4, 2, 1, 4),
        (1, 1, 1, None),  # parts of one patch
        (4, 1, 2, 2),
        (4, 1, 4, None),  # 2 patches a rank
        (3, 1, 3, None),  # 8 patches are not for 3 ranks
    ],
)
def test_the_recipe_is_kept_by_parts_that_are_no_larger(batch, parts, ranks, expected):
    hint = learning_rate_hint(batch, 2.5e-4, grad_accumulation=parts, ranks=ranks)
    if expected is None:
        assert "--grad-accumulation" not in hint
    else:
        assert hint.endswith(f"--batch-size 8 --grad-accumulation {expected}")


def test_no_hint_where_both_or_none_were_changed():
    assert learning_rate_hint(8, 2.5e-4) is None
    assert learning_rate_hint(8, 1e-3) is None
    assert learning_rate_hint(4, 1e-3) is None
    assert learning_rate_hint(4, 1e-3, default_batch_size=4, default_learning_rate=1e-3) is None
    assert "for --batch-size 2," in learning_rate_hint(
        2, 1e-3, default_batch_size=4, default_learning_rate=1e-3
    )
