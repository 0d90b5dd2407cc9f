"""The jackknife where the answer is known."""

import math

import numpy as np
import pytest

from ignite_salak.metrics import jackknife_error


def test_of_a_mean_it_is_the_standard_error():
    values = np.random.default_rng(0).random(7)
    error = jackknife_error(7, lambda image: np.delete(values, image).mean())
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(7))


def test_of_a_ratio_it_is_near_what_new_images_do():
    # 2,000 sets of 40 images: how far sum(hits) / sum(pixels) really varies.
    generator = np.random.default_rng(1)
    pixels = generator.integers(50, 150, (2000, 40))
    hits = generator.binomial(pixels, generator.beta(8, 4, pixels.shape))
    real = (hits.sum(1) / pixels.sum(1)).std()

    found = [
        jackknife_error(40, lambda i, h=h, p=p: np.delete(h, i).sum() / np.delete(p, i).sum())
        for h, p in zip(hits[:200], pixels[:200], strict=True)
    ]
    assert np.mean(found) == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_has_no_error(count):
    assert math.isnan(jackknife_error(count, lambda image: 0.5))


def test_a_score_that_is_missing_makes_it_missing():
    assert math.isnan(jackknife_error(2, lambda image: (0.5, math.nan)[image]))
