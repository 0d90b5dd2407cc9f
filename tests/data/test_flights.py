"""The order of photos in their folders, and sums of their pixels."""

import numpy as np

from ignite_salak.data.flights import flight_order, source_totals
from tests.data.indexes import make_index


def test_photos_stand_in_the_order_of_their_numbers_folder_by_folder(tmp_path):
    index = make_index(tmp_path, {"f1": {"a_10": "m", "a_9": "m", "b_1": "m"}, "f2": {"a_2": "m"}})
    sources = np.array([3, 0, 1])
    groups = flight_order(index, sources)
    assert [sources[group].tolist() for group in groups] == [[1, 0], [3]]


def test_pixels_are_those_of_all_patches_of_a_photo(tmp_path):
    index = make_index(tmp_path, {"f1": {"a": "mm", "b": "m", "c": "--"}})
    counts = np.array([[1, 2], [10, 20], [5, 0], [0, 0], [0, 0]])
    assert source_totals(index, counts).tolist() == [[11, 22], [5, 0], [0, 0]]
