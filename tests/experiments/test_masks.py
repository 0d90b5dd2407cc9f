"""Masks are read as their colours say, and bad files are named."""

import numpy as np
import pytest

from experiments.masks import look_at_masks
from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.splits import masked_patches


@pytest.fixture
def found(plantation):
    index = scan_patches(plantation.root)
    return index, masked_patches(index), ClassMap.from_csv(plantation.root / "class_mapping.csv")


def test_pixels_of_every_mask_are_counted(found):
    index, patches, classes = found
    reader, statistics = look_at_masks(index, patches, classes, "auto", False)
    mask, _ = reader.read(index.mask_path(patches[0]))
    expected = np.bincount(mask.ravel(), minlength=classes.num_classes)
    assert statistics.counts[patches[0]].tolist() == expected[: classes.num_classes].tolist()
    assert (statistics.counts[patches].sum(axis=1) > 0).all()


def test_a_bad_file_is_an_error_or_skipped_and_named(found, caplog):
    index, patches, classes = found
    index.image_path(patches[3]).write_bytes(b"no image")
    with pytest.raises(BadFileError):
        look_at_masks(index, patches, classes, "auto", False)
    _, statistics = look_at_masks(index, patches, classes, "auto", True)
    assert list(statistics.bad_files) == [patches[3]]
    assert index.image_path(patches[3]).name in caplog.text
