"""Tasks cover every patch once; a cut patch is what the photo holds there."""

import numpy as np
import pytest
import torch
from PIL import Image

from ignite_salak.data.cutting import Cutter, list_tasks
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.grid import Grid
from ignite_salak.data.sources import Header, read_header
from ignite_salak.data.survey import Photo
from ignite_salak.pseudo_labels import content_mask

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 256, (40, 56, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, (40, 56)).astype(np.uint8)


@pytest.fixture
def photo(tmp_path, save):
    image = read_header(save(tmp_path / "in" / "DJI_0001.png", PIXELS))
    return Photo("", image, read_header(save(tmp_path / "in" / "m.png", LABELS)), "f")


def read(path):
    return np.asarray(Image.open(path))


class TestTasks:
    def test_a_photo_is_one_task(self, photo):
        (task,) = list_tasks([photo], Grid(16, 16))
        assert (task.rows, task.columns) == (((0, 0), (1, 16), (2, 32)), (0, 16, 32, 48))
        assert task.patches == 12

    @pytest.mark.parametrize("edge", ["pad", "drop", "shift"])
    def test_tasks_of_a_large_image_cover_all_rows_once(self, tmp_path, edge):
        grid = Grid(256, 100, edge)
        photo = Photo("", Header(tmp_path / "a.tif", 30000, 700, large=True))
        tasks = list_tasks([photo], grid)
        assert len({task.name for task in tasks}) == len(tasks) > 30
        rows = [row for task in tasks for row in task.rows]
        assert rows == list(enumerate(grid.starts(30000)))
        assert sum(task.patches for task in tasks) == grid.count(30000, 700)

    @pytest.mark.parametrize("size", [(15, 100), (100, 15)])
    def test_a_photo_without_patches_has_no_task(self, tmp_path, size):
        assert (
            list_tasks([Photo("", Header(tmp_path / "a.png", *size))], Grid(16, 16, "drop")) == []
        )

    def test_stamp_tells_a_changed_file(self, photo, save):
        (task,) = list_tasks([photo], Grid(16, 16))
        before = task.stamp()
        assert len(before) == 4 and task.stamp() == before
        save(photo.mask.path, LABELS[:20])
        assert task.stamp() != before


@pytest.mark.parametrize(
    ("grid", "places"),
    [
        (Grid(16, 16, "pad"), [(0, 16, 32), (0, 16, 32, 48)]),
        (Grid(16, 10, "drop"), [(0, 10, 20), (0, 10, 20, 30, 40)]),
        (Grid(16, 16, "shift"), [(0, 16, 24), (0, 16, 32, 40)]),
    ],
)
def test_patches_hold_what_the_photo_holds_there(tmp_path, photo, classes, grid, places):
    (task,) = list_tasks([photo], grid)
    result = Cutter(MaskReader(classes), grid).write(task, tmp_path)
    count = len(places[0]) * len(places[1])
    assert (result.patches, result.masked, result.dropped, result.problem) == (count, count, 0, "")
    image = np.pad(PIXELS, [(0, 16), (0, 16), (0, 0)])
    mask = np.pad(LABELS, 16, constant_values=255)[16:, 16:]
    for row, top in enumerate(places[0]):
        for column, left in enumerate(places[1]):
            here = slice(top, top + 16), slice(left, left + 16)
            name = f"DJI_0001_patch_{row:03d}_{column:03d}.png"
            np.testing.assert_array_equal(read(tmp_path / "f" / "images" / name), image[here])
            np.testing.assert_array_equal(read(tmp_path / "f" / "masks" / name), mask[here])
    assert len(list((tmp_path / "f").rglob("*.png"))) == 2 * count


def test_more_than_999_columns(tmp_path, save, classes):
    header = read_header(save(tmp_path / "a.png", np.ones((16, 16 * 1001, 3), np.uint8)))
    (task,) = list_tasks([Photo("", header)], Grid(16, 16))
    Cutter(MaskReader(classes), Grid(16, 16)).write(task, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert len(names) == 1001
    assert {"a_patch_000_999.png", "a_patch_000_1000.png"} <= names


def test_transparent_pixels_are_unlabelled(tmp_path, save, classes):
    rgba = np.concatenate([PIXELS, np.full((40, 56, 1), 255, np.uint8)], axis=2)
    rgba[:5, :, 3] = 0
    image = read_header(save(tmp_path / "t.png", rgba))
    mask = read_header(save(tmp_path / "m.png", LABELS))
    (task,) = list_tasks([Photo("", image, mask)], Grid(64, 64))
    Cutter(MaskReader(classes), Grid(64, 64)).write(task, tmp_path)
    written = read(tmp_path / "masks" / "t_patch_000_000.png")
    assert (written[:5] == 255).all()
    np.testing.assert_array_equal(written[5:40, :56], LABELS[5:])


class TestBlackAsContent:
    """Rows 0 to 4 of the photo are black, of which, if any, rows 0 and 1 are transparent."""

    @pytest.fixture(params=["jpg-like", "transparent"])
    def cut(self, request, tmp_path, save, classes):
        pixels = PIXELS.copy()
        pixels[:5] = 0
        first = 0
        if request.param == "transparent":
            pixels = np.concatenate([pixels, np.full((40, 56, 1), 255, np.uint8)], axis=2)
            pixels[:2, :, 3], first = 0, 2
        image = read_header(save(tmp_path / "b.png", pixels))
        mask = read_header(save(tmp_path / "m.png", LABELS))

        def call(**options):
            (task,) = list_tasks([Photo("", image, mask)], Grid(64, 64))
            result = Cutter(MaskReader(classes), Grid(64, 64), **options).write(task, tmp_path)
            assert result.patches == 1
            folders = (tmp_path / "images", tmp_path / "masks")
            return first, *(read(folder / "b_patch_000_000.png") for folder in folders)

        return call

    def test_black_stays_black_unless_asked(self, cut):
        first, image, mask = cut()
        assert not image[:5].any()
        assert (mask[:first] == 255).all()
        np.testing.assert_array_equal(mask[first:40, :56], LABELS[first:])

    def test_only_padding_and_transparent_pixels_stay_black(self, cut):
        first, image, mask = cut(black_is_nodata=False)
        assert (image[first:5, :56] == 1).all()
        assert not image[:first].any() and not image[40:].any() and not image[:, 56:].any()
        np.testing.assert_array_equal(image[5:40, :56], PIXELS[5:])
        np.testing.assert_array_equal(mask[first:40, :56], LABELS[first:])

    def test_training_takes_it_for_content(self, cut):
        first, image, _ = cut(black_is_nodata=False)
        content = content_mask(torch.tensor(image).permute(2, 0, 1)[None])[0].numpy()
        assert content[first:40, :56].all() and content.sum() == (40 - first) * 56


def test_a_bad_photo_is_a_result(tmp_path, photo, classes):
    photo.image.path.write_bytes(photo.image.path.read_bytes()[:500])
    (task,) = list_tasks([photo], Grid(16, 16))
    cutter = Cutter(MaskReader(classes), Grid(16, 16))
    for result in (cutter.write(task, tmp_path / "out"), cutter.weigh(task)):
        assert result.problem.startswith(f"{photo.image.path}: ") and result.patches == 0
    assert not (tmp_path / "out").exists()
