"""V4's option groups: what they resolve to, and what they say."""

import pytest

from experiments.v4_options import StrongOptions, TeacherOptions
from ignite_salak.augment import RandomColors


def test_colors_are_off_until_one_of_them_is_wanted():
    assert StrongOptions().color_views() is None
    all_of_them = StrongOptions(color_jitter=(0.5, 0.5, 0.5, 0.25), grayscale=0.2, blur=0.5)
    assert all_of_them.color_views() == RandomColors()
    grey = StrongOptions(grayscale=0.3).color_views()
    assert (grey.jitter_probability, grey.blur_probability) == (0.0, 0.0)
    assert grey.grayscale_probability == 0.3


@pytest.mark.parametrize(
    ("options", "steps", "said"),
    [
        ({}, 800, []),
        ({}, 400, ["--st-ramp-iters 800 is longer than the run; pseudo-labels reach 29% of"]),
        ({"confidence_threshold": 0.8}, 800, ["--confidence-threshold 0.8 is not used without"]),
        ({"confidence_threshold": 0.8, "quantile_thresholds": False}, 800, []),
        ({"confidence_threshold": 0.8, "st_loss_weight": 0.0}, 400, []),
    ],
)
def test_options_that_do_less_than_they_seem_to_are_told(capsys, options, steps, said):
    TeacherOptions(**options).print_hints(steps)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(said)
    assert all(line.startswith(f"hint: {text}") for line, text in zip(lines, said, strict=True))
