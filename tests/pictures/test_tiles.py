"""Tiles: their size, their order, and what they show."""

import numpy as np
import pytest
from matplotlib import colormaps

from ignite_salak.pictures import WRONG, dim, tile_size, unlabeled_tiles, validation_tiles


class TestTileSize:
    @pytest.mark.parametrize(
        ("size", "shown"),
        [
            ((256, 256), (256, 256)),
            ((128, 200), (128, 200)),
            ((512, 256), (256, 128)),
            ((1024, 1), (256, 1)),
            ((32, 32), (160, 160)),
            ((127, 10), (254, 20)),
            ((1, 1), (160, 160)),
        ],
    )
    def test_is_readable_and_bounded(self, size, shown):
        assert tile_size(*size) == shown


class TestTiles:
    def test_of_validation_in_order(self, photo, classes):
        truth = np.full((128, 128), 1)
        truth[:, 64:] = 255
        prediction = np.full((128, 128), 2)
        confidence = np.full((128, 128), 0.25, dtype=np.float32)
        tiles = validation_tiles(photo(128, 128), truth, prediction, confidence, classes)
        viridis = colormaps["viridis"](0.25, bytes=True)[:3]
        first = [tuple(tile[5, 5].tolist()) for tile in tiles]
        assert first == [(90, 120, 60), (255, 50, 10), (20, 60, 200), viridis, WRONG]
        assert tuple(tiles[1][5, 100]) not in classes.colors
        assert tiles[1][5, 100].tolist() == tiles[4][5, 100].tolist()

    def test_of_unlabelled_patches_in_order(self, photo, classes):
        kept = np.full((128, 128), 255)
        kept[0, 0] = 1
        prediction = np.ones((128, 128), dtype=np.int64)
        confidence = np.ones((128, 128), dtype=np.float32)
        tiles = unlabeled_tiles(photo(128, 128), prediction, confidence, classes, kept)
        assert [tile[0, 0].tolist() for tile in tiles] == [
            [90, 120, 60],
            [255, 50, 10],
            [253, 231, 36],
            [255, 50, 10],
        ]
        assert tiles[3][1, 1].tolist() == dim(photo(1, 1))[0, 0].tolist()
        assert len(unlabeled_tiles(photo(9, 9), kept[:9, :9], confidence[:9, :9], classes)) == 3

    def test_small_labels_are_enlarged_without_new_ones(self, photo, classes):
        labels = np.array([[0, 1], [2, 255]])
        tiles = validation_tiles(photo(2, 2), labels, labels, np.eye(2), classes)
        assert {tile.shape for tile in tiles} == {(160, 160, 3)}
        assert (tiles[1][:80, 80:] == classes.colors[1]).all()
        assert (tiles[1][80:, :80] == classes.colors[2]).all()
        assert (tiles[3][:80, :80] == (253, 231, 36)).all()

    @pytest.mark.parametrize(
        ("size", "shape"), [((512, 300), (256, 150, 3)), ((1, 300), (1, 256, 3))]
    )
    def test_large_and_odd_patches_are_reduced(self, validation_row, classes, size, shape):
        assert {tile.shape for tile in validation_row(*size, classes).tiles} == {shape}

    def test_wrong_shapes_are_refused(self, photo, classes):
        labels, confidence = np.zeros((8, 8), dtype=np.int64), np.zeros((8, 8), dtype=np.float32)
        with pytest.raises(ValueError, match=r"truth of shape \(8, 7\), the image has \(8, 8\)"):
            validation_tiles(photo(8, 8), labels[:, :7], labels, confidence, classes)
        with pytest.raises(ValueError, match="confidence of shape"):
            unlabeled_tiles(photo(8, 8), labels, confidence[None], classes)
        with pytest.raises(ValueError, match="pseudo_labels of shape"):
            unlabeled_tiles(photo(8, 8), labels, confidence, classes, labels[1:])
        with pytest.raises(ValueError, match=r"image of uint8 \(3, 8, 8\), expected uint8 \[H"):
            validation_tiles(np.zeros((3, 8, 8), np.uint8), labels, labels, confidence, classes)
        with pytest.raises(ValueError, match="image of float64"):
            unlabeled_tiles(photo(8, 8) / 255, labels, confidence, classes)
