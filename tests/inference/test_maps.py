"""Class rasters and confidence rasters, from bands to files."""

import numpy as np
import pytest
import torch
from PIL import Image

from ignite_salak.data.decoding import MaskReader
from ignite_salak.inference.maps import Block, GeoTiffMap, PngMap, create_map, in_blocks
from ignite_salak.inference.rasters import open_picture
from ignite_salak.inference.sliding_window import Band

rasterio = pytest.importorskip("rasterio")


def band(top, rows, width=4, classes=3, seed=0):
    torch.manual_seed(seed + top)
    probabilities = torch.rand(classes, rows, width).softmax(dim=0)
    valid = np.random.default_rng(seed + top).random((rows, width)) > 0.2
    return Band(top, probabilities, valid, np.full((3, rows, width), top, np.uint8))


def test_the_most_probable_class_and_its_probability_in_percent():
    probabilities = torch.tensor([[0.2, 0.505, 0.1], [0.8, 0.495, 0.9]])[:, None]
    valid = np.array([[True, True, False]])
    block = Block.from_band(Band(7, probabilities, valid, np.zeros((3, 1, 3), np.uint8)))
    assert block.top == 7
    assert block.classes.tolist() == [[1, 0, 255]]
    assert block.confidence.tolist() == [[80, 50, 255]]
    assert block.classes.dtype == block.confidence.dtype == np.uint8


@pytest.mark.parametrize("heights", [[100], [30, 30, 30, 10], [1] * 100, [64, 36], [32, 32, 36]])
def test_bands_of_any_height_become_blocks(heights):
    tops = np.cumsum([0, *heights[:-1]]).tolist()
    bands = [band(top, rows) for top, rows in zip(tops, heights, strict=True)]
    blocks = list(in_blocks(bands, 32))
    assert [block.top for block in blocks] == [0, 32, 64, 96]
    assert [len(block.classes) for block in blocks] == [32, 32, 32, 4]
    alone = [Block.from_band(one) for one in bands]
    for name in ("classes", "confidence"):
        whole, parts = (
            np.concatenate([getattr(block, name) for block in some]) for some in (alone, blocks)
        )
        assert np.array_equal(whole, parts)
    assert blocks[-1].image.shape == (3, 4, 4)


def test_a_band_is_used_before_its_memory_is():
    """Each band's probabilities are overwritten when the next one is asked for."""
    memory = torch.zeros(2, 8, 4)

    def bands():
        for number in range(3):
            memory.zero_()
            memory[number % 2] = 1.0
            yield Band(8 * number, memory, np.ones((8, 4), bool), np.zeros((3, 8, 4), np.uint8))

    [block] = in_blocks(bands(), 512)
    assert block.classes[::8, 0].tolist() == [0, 1, 0]


@pytest.fixture
def picture(write_raster, utm):
    """A georeferenced picture of 600 x 700 pixels."""
    path = write_raster("in.tif", np.ones((3, 700, 600), np.uint8), photometric="RGB", **utm)
    with open_picture(path) as opened:
        yield opened


def test_a_geotiff_has_georeference_palette_names_nodata_and_tiles(picture, classes, tmp_path, utm):
    values = np.random.default_rng(0).integers(0, 3, (700, 600)).astype(np.uint8)
    values[5:9, 7:20] = 255
    with create_map(tmp_path / "a_classes", picture, classes) as file:
        file.write(0, values[:512])
        file.write(512, values[512:])
        file.commit()
    with rasterio.open(tmp_path / "a_classes.tif") as found:
        assert np.array_equal(found.read(1), values)
        assert found.crs.to_epsg() == 32749
        assert found.transform == utm["transform"]
        assert found.nodata == 255
        assert found.block_shapes == [(512, 512)]
        assert found.profile["compress"] == "deflate"
        assert found.colorinterp[0].name == "palette"
        assert [found.colormap(1)[i][:3] for i in range(3)] == list(classes.colors)
        tags = found.tags()
        assert [tags[f"CLASS_{i}"] for i in range(3)] == list(classes.names)
        assert np.array_equal(found.dataset_mask() == 0, values == 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_classes.tif", "in.tif"]


def test_confidence_is_grey(picture, tmp_path):
    with create_map(tmp_path / "c", picture) as file:
        file.write(0, np.full((512, 600), 99, np.uint8))
        file.write(512, np.full((188, 600), 255, np.uint8))
        file.commit()
    with rasterio.open(tmp_path / "c.tif") as found:
        assert found.colorinterp[0].name == "gray"
        assert (found.read(1)[:512] == 99).all()
        assert not found.dataset_mask()[512:].any()


def test_control_points_are_kept(write_raster, tmp_path):
    points = [
        rasterio.control.GroundControlPoint(row, column, 430_000 + column, 9_160_000 - row)
        for row, column in ((0, 0), (0, 20), (20, 0), (20, 20))
    ]
    path = write_raster(
        "g.tif", np.ones((3, 20, 20), np.uint8), photometric="RGB", gcps=points, crs="EPSG:32749"
    )
    with open_picture(path) as picture, create_map(tmp_path / "m", picture) as file:
        file.write(0, np.zeros((20, 20), np.uint8))
        file.commit()
    with rasterio.open(tmp_path / "m.tif") as found:
        kept, crs = found.gcps
    assert crs.to_epsg() == 32749
    assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]


def test_what_is_not_committed_leaves_nothing_and_the_old_file(picture, classes, tmp_path):
    (tmp_path / "a.tif").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), create_map(tmp_path / "a", picture, classes) as file:
        file.write(0, np.zeros((512, 600), np.uint8))
        assert (tmp_path / "a.partial.tif").exists()
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "in.tif"]
    assert (tmp_path / "a.tif").read_bytes() == b"old"


def test_half_a_file_of_a_killed_process_is_written_over(picture, tmp_path):
    (tmp_path / "a.partial.tif").write_bytes(b"II*\0 half a file")
    with create_map(tmp_path / "a", picture) as file:
        file.write(0, np.zeros((512, 600), np.uint8))
        file.write(512, np.zeros((188, 600), np.uint8))
        file.commit()
    assert not (tmp_path / "a.partial.tif").exists()
    with rasterio.open(tmp_path / "a.tif") as found:
        assert found.shape == (700, 600)


def test_a_file_that_does_not_hold_what_was_written_gets_no_name(picture, tmp_path):
    """As on a full disk, of which GDAL says nothing when it closes a file."""
    with (
        pytest.raises(OSError, match=r"a.tif cannot be written; [\d,]+ MB of the disk are free"),
        create_map(tmp_path / "a", picture) as file,
    ):
        file.write(0, np.full((512, 600), 7, np.uint8))
        file.write(512, np.full((188, 600), 7, np.uint8))
        file._dataset.close()
        with rasterio.open(file.partial, "r+") as damaged:
            damaged.write(np.full((1, 1, 1), 8, np.uint8), window=((699, 700), (599, 600)))
        file.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


@pytest.fixture
def photo(tmp_path, save):
    """A photo without georeference."""
    with open_picture(save(tmp_path / "in.png", np.ones((20, 30, 3), np.uint8))) as opened:
        yield opened


def test_a_png_has_indices_and_the_palette_and_is_read_as_a_mask(photo, classes, tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    values[3, 4] = 255
    with create_map(tmp_path / "a_classes", photo, classes) as file:
        assert isinstance(file, PngMap)
        file.write(0, values)
        file.commit()
    with Image.open(tmp_path / "a_classes.png") as image:
        assert image.mode == "P"
        shown = np.asarray(image.convert("RGBA"))
    assert np.array_equal(shown[values == 1][0], [*classes.colors[1], 255])
    assert shown[3, 4, 3] == 0
    mask, unlisted = MaskReader(classes, "color").read(tmp_path / "a_classes.png")
    assert np.array_equal(mask, values)
    assert not unlisted


def test_a_confidence_png_holds_percent_and_shows_more_as_brighter(photo, tmp_path):
    values = np.tile(np.arange(30, dtype=np.uint8) * 3, (20, 1))
    values[0] = 255
    with create_map(tmp_path / "c", photo) as file:
        file.write(0, values)
        file.commit()
    with Image.open(tmp_path / "c.png") as image:
        assert np.array_equal(np.asarray(image), values)
        brightness = np.asarray(image.convert("RGB").convert("L")).astype(int)
    assert (np.diff(brightness[5]) >= 0).all()
    assert brightness[5, -1] > brightness[5, 0] + 100


def test_a_png_that_is_not_committed_is_not_written(photo, tmp_path):
    with create_map(tmp_path / "a", photo) as file:
        file.write(0, np.zeros((20, 30), np.uint8))
    assert not (tmp_path / "a.png").exists()


def test_a_folder_that_is_missing_is_an_error_that_names_the_file(picture, tmp_path):
    with pytest.raises(OSError, match=r"gone"):
        GeoTiffMap(tmp_path / "gone" / "a.tif", picture)
