"""The colour of known pixels."""

import numpy as np
import pytest

from ignite_salak.pictures import (
    WRONG,
    color_confidence,
    color_errors,
    color_labels,
    color_pseudo_labels,
    dim,
)

WHITE = (255, 255, 255)


class TestColors:
    def test_labels_have_the_colours_of_their_classes_and_ignored_ones_are_striped(self, classes):
        picture = color_labels(np.array([[0, 1, 2] + [255] * 8]), classes)
        assert picture.dtype == np.uint8
        assert [tuple(pixel) for pixel in picture[0, :3]] == list(classes.colors)
        assert {tuple(pixel) for pixel in picture[0, 3:].tolist()} == {
            (222, 222, 222),
            (120, 120, 120),
        }

    @pytest.mark.parametrize("label", [3, 254, -1])
    def test_an_index_without_class_is_refused(self, classes, label):
        with pytest.raises(ValueError, match=f"label {label}, expected 0 to 2 or 255"):
            color_labels(np.array([[0, label]]), classes)

    def test_labels_of_another_shape_are_refused(self, classes):
        with pytest.raises(ValueError, match="expected \\[H, W\\]"):
            color_labels(np.zeros((1, 2, 2), dtype=np.int64), classes)

    def test_confidence_is_viridis(self):
        picture = color_confidence(np.array([[0.0, 1.0, 1.2]], dtype=np.float32))
        assert picture[0].tolist() == [[68, 1, 84], [253, 231, 36], [253, 231, 36]]

    def test_a_dimmed_photo_is_dark_grey(self):
        image = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], dtype=np.uint8)
        # Luminance of red is 0.299 * 255 = 76; 20 + 76 * 82 / 255 = 44.4.
        assert dim(image)[0].tolist() == [[20] * 3, [102] * 3, [44] * 3]

    def test_wrong_pixels_stand_out_correct_ones_are_dimmed_ignored_ones_neither(self, photo):
        truth = np.array([[0, 1, 255]])
        picture = color_errors(photo(1, 3, WHITE), truth, np.array([[0, 2, 1]]))
        assert picture[0, :2].tolist() == [[102, 102, 102], list(WRONG)]
        assert picture[0, 2, 0] in (120, 222)

    def test_only_kept_pixels_have_a_colour(self, photo, classes):
        picture = color_pseudo_labels(photo(1, 2, WHITE), np.array([[2, 255]]), classes)
        assert picture[0].tolist() == [[20, 60, 200], [102, 102, 102]]
