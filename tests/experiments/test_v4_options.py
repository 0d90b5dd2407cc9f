"""V4's option groups: what they resolve to, and what they say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.v4_options import StrongOptions, TeacherOptions
from ignite_salak.augment import RandomColors

CPU = torch.device("cpu")


def test_colors_are_off_until_one_of_them_is_wanted():
    assert StrongOptions().color_views() is None
    all_of_them = StrongOptions(color_jitter=(0.5, 0.5, 0.5, 0.25), grayscale=0.2, blur=0.5)
    assert all_of_them.color_views() == RandomColors()
    grey = StrongOptions(grayscale=0.3).color_views()
    assert (grey.jitter_probability, grey.blur_probability) == (0.0, 0.0)
    assert grey.grayscale_probability == 0.3


def test_votes_and_thresholds_expect_the_shares_of_the_labelled_photos():
    data = SimpleNamespace(
        classes=SimpleNamespace(num_classes=2),
        labeled_pixels=np.array([[30, 20], [30, 20]]),
        estimated_pixels=np.array([899, 99]),
    )
    teacher = TeacherOptions(keep_share=(1.0, 1.0), threshold_bounds=(0.0, 1.0))
    valid = torch.ones(1, 10, 10, dtype=torch.bool)
    aligned = teacher.distribution_alignment(data, CPU)(torch.full((1, 2, 10, 10), 0.5), valid)
    torch.testing.assert_close(aligned[0, :, 0, 0], torch.tensor([0.9, 0.1]))
    # Half of the pixels is taken for either class, with confidences from 0.5 to 1: of the second
    # a fifth is kept, as many as a tenth of all, of the first all.
    confidence = torch.linspace(0.5, 1.0, 52)[1:-1]
    second = torch.cat([1 - confidence, confidence]).view(1, 10, 10)
    thresholds = teacher.thresholds(data, 1, CPU)
    thresholds.update(torch.stack([1 - second, second], dim=1), valid, 1)
    kept = [
        int((each >= bound).sum())
        for each, bound in zip(
            (1 - second[second < 0.5], second[second > 0.5]), thresholds.values, strict=True
        )
    ]
    assert kept == [50, pytest.approx(10, abs=1)]


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
