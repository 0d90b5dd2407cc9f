"""Masks of orthomosaics by strips: indices, colours and palettes; odd files refused by name."""

from contextlib import closing

import numpy as np
import pytest

from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.ortho_masks import OrthoMask
from ignite_salak.data.orthomosaics import OrthoImage
from tests.data.made_up import HEIGHT, LABELS, PIXELS, WIDTH

pytest.importorskip("rasterio", reason="the extra geo is not installed")


def read_mask(path, classes, image=None, mask_format="index"):
    with closing(OrthoMask(path)) as mask:
        table = mask.study(MaskReader(classes, mask_format), image)
        return mask.read(0, mask.height, table), table


def test_indices_colours_and_palettes(geotiff, classes):
    shuffled = np.array([2, 0, 1], np.uint8)
    stored = np.argsort(shuffled).astype(np.uint8)[LABELS]
    colors = {i: classes.colors[c] for i, c in enumerate(shuffled)}
    for path in (
        geotiff("index.tif", LABELS),
        geotiff("wide.tif", LABELS.astype(np.uint16)),
        geotiff("signed.tif", LABELS.astype(np.int32)),
        geotiff("three.tif", np.repeat(LABELS[..., None], 3, axis=2)),
        geotiff("colors.tif", classes.palette[LABELS]),
        geotiff("palette.tif", stored, colors),
    ):
        mask, table = read_mask(path, classes)
        assert mask.dtype == np.uint8 and not table.unlisted
        np.testing.assert_array_equal(mask, LABELS, err_msg=path.name)
        counts = np.zeros(256, np.int64)
        np.add.at(counts, table.labels, table.counts)
        assert counts[:3].tolist() == np.bincount(LABELS.ravel()).tolist()


def test_one_decision_for_the_whole_file(geotiff, classes):
    # The first strip alone is black and could be indices.
    labels = LABELS.copy()
    labels[:256] = 0
    other = classes.__class__(("a", "b", "c"), ((9, 9, 9), (255, 50, 10), (0, 0, 0)))
    mask, _ = read_mask(geotiff("a.tif", other.palette[labels]), other)
    np.testing.assert_array_equal(mask, labels)


def test_in_colors(geotiff, classes):
    labels = np.zeros_like(LABELS)
    labels[299, 39] = 1
    for pixels, expected in (
        (classes.palette[labels], True),
        (np.repeat(labels[..., None], 3, axis=2), False),
        (labels, False),
    ):
        with closing(OrthoMask(geotiff("a.tif", pixels))) as mask:
            assert mask.in_colors() is expected


def test_unlisted_colours_are_counted_where_the_image_has_content(geotiff, classes):
    colors = classes.palette[LABELS]
    colors[:20] = (1, 2, 3)
    stored = PIXELS.copy()
    stored[:15] = 0
    with closing(OrthoImage(geotiff("image.tif", stored, nodata=0))) as image:
        mask, table = read_mask(geotiff("mask.tif", colors), classes, image)
    assert table.unlisted == {(1, 2, 3): 5 * WIDTH}
    assert table.counts.sum() == (HEIGHT - 15) * WIDTH
    assert (mask[:20] == 255).all()
    np.testing.assert_array_equal(mask[20:], LABELS[20:])


def test_nodata_of_the_mask_is_ignored(geotiff, classes):
    mask, table = read_mask(geotiff("a.tif", LABELS, nodata=0), classes)
    np.testing.assert_array_equal(mask, np.where(LABELS == 0, 255, LABELS))
    assert table.counts.sum() == (LABELS > 0).sum()


def test_nothing_but_nodata(geotiff, classes):
    mask, table = read_mask(geotiff("a.tif", np.zeros_like(LABELS), nodata=0), classes)
    assert (mask == 255).all() and not table.counts.sum()


def test_refused_by_name(geotiff, classes):
    bad = LABELS.copy()
    bad[299, 0] = 7
    for path, message in (
        (geotiff("index.tif", bad), "index 7 is out of range"),
        (geotiff("float.tif", LABELS.astype(np.float32)), "float32 pixels"),
        (geotiff("deep.tif", classes.palette[LABELS].astype(np.uint16)), "uint16 pixels"),
        (geotiff("relief.tif", np.arange(70000, dtype=np.int32)[None]), "no mask"),
    ):
        with pytest.raises(BadFileError, match=message) as caught:
            read_mask(path, classes)
        assert str(caught.value).startswith(f"{path}: ")
