"""A photo of one colour, and the row that is made of it."""

import numpy as np
import pytest

from ignite_salak.pictures import Row, validation_tiles


@pytest.fixture
def photo():
    """Returns a function that makes a photo."""

    def photo(height, width, color=(90, 120, 60)):
        return np.full((height, width, 3), color, dtype=np.uint8)

    return photo


@pytest.fixture
def validation_row(photo):
    """Returns a function that makes the row of a patch that was predicted without errors."""

    def validation_row(height, width, classes, name="patch"):
        labels = np.arange(height * width).reshape(height, width) % classes.num_classes
        confidence = np.full((height, width), 0.5, dtype=np.float32)
        tiles = validation_tiles(photo(height, width), labels, labels, confidence, classes)
        return Row(name, "100.0% correct", tiles)

    return validation_row
