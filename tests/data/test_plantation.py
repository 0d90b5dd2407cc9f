import hashlib

import numpy as np
import pytest
from PIL import Image

from ignite_salak.classes import ClassMap
from ignite_salak.data.plantation import SALAK_CLASSES, make_plantation, render_photo

SHARES = np.array([0.2945, 0.0022, 0.1383, 0.0287, 0.0469, 0.4054, 0.0840])
BIG = [0, 2, 5]
WATER = 1
TINY = {"photos": 4, "photo_size": 128, "patch_size": 64, "seed": 3}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return make_plantation(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def photos():
    return [render_photo(512, 512, seed) for seed in range(12)]


def files(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def masks(plantation):
    return {
        path.name: np.asarray(Image.open(path))
        for path in sorted(plantation.root.glob("*/masks/*.png"))
    }


def decode(colors):
    indices = np.full(colors.shape[:2], 255)
    for index, color in enumerate(SALAK_CLASSES.palette):
        indices[(colors == color).all(axis=2)] = index
    return indices


def shares_by_photo(plantation):
    counts = {}
    for name, mask in masks(plantation).items():
        total = counts.setdefault(name.split("_patch_")[0], np.zeros(7))
        total += np.bincount(decode(mask).ravel(), minlength=7)
    return np.array([count / count.sum() for count in counts.values()])


def mean_iou(predicted, true):
    matrix = np.bincount(true * 7 + predicted, minlength=49).reshape(7, 7)
    hits = np.diag(matrix)
    return (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean()


def pixels(photos):
    images = np.concatenate([image.reshape(-1, 3) for image, _ in photos])
    labels = np.concatenate([labels.ravel() for _, labels in photos])
    return images[::4].astype(np.int64), labels[::4].astype(np.int64)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed -1 .* 0 or more"),
        ({"photo_size": 32, "patch_size": 32}, "photo_size 32 .* at least 64"),
        ({"patch_size": 0}, "patch_size 0 .* divisor"),
        ({"patch_size": 100}, "patch_size 100 does not divide photo_size 512"),
        ({"photo_size": 1024, "patch_size": 1}, "patch_size 1 .* larger patches"),
        ({"labeled_folders": -1}, "labeled_folders -1 .* 0 or more"),
        ({"unlabeled_folders": -2}, "unlabeled_folders -2 .* 0 or more"),
        ({"labeled_folders": 0, "unlabeled_folders": 0}, "at least one must be positive"),
        ({"photos": 3}, "photos 3 .* between 4"),
        ({"photos": 10_000}, "photos 10000 .* 9999"),
        ({"mask_format": "rgb"}, "mask_format 'rgb' .* color, index, index3"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        make_plantation(tmp_path / "data", **arguments)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((63, 128, 0), "height 63 .* at least 64"),
        ((128, 10, 0), "width 10 .* at least 64"),
        ((128, 128, -5), "seed -5 .* 0 or more"),
    ],
)
def test_bad_photos_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        render_photo(*arguments)


def test_a_folder_with_other_patches_is_refused(tmp_path):
    make_plantation(tmp_path, **TINY)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"another plantation.*_patch_.*choose an empty folder"):
        make_plantation(tmp_path, **{**TINY, "labeled_folders": 1, "unlabeled_folders": 3})
    assert files(tmp_path) == before


def test_classes_are_those_of_the_real_data():
    assert SALAK_CLASSES.names == (
        "__background__",
        "Badan Air",
        "Bangunan",
        "Jalan",
        "Pohon Berinang",
        "Snake Fruit",
        "Tanah Terbuka",
    )
    assert SALAK_CLASSES.colors[1] == (255, 50, 50)
    assert SALAK_CLASSES.colors[5:] == ((50, 167, 255), (109, 50, 255))
    assert SALAK_CLASSES.thresholds == (None,) * 7


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 200), (301, 130)])
def test_photo_is_a_function_of_its_arguments(height, width):
    image, labels = render_photo(height, width, 5)
    again, other = render_photo(height, width, 5), render_photo(height, width, 6)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((height, width), np.uint8)
    assert labels.max() < SALAK_CLASSES.num_classes
    assert np.array_equal(image, again[0])
    assert np.array_equal(labels, again[1])
    assert not np.array_equal(image, other[0])
    assert not np.array_equal(labels, other[1])


def test_many_seeds_draw_without_error():
    for seed in range(100):
        render_photo(64, 64, seed)


def test_same_arguments_write_the_same_bytes(tmp_path):
    make_plantation(tmp_path / "a", **TINY)
    make_plantation(tmp_path / "b", **TINY)
    written = files(tmp_path / "a")
    assert files(tmp_path / "b") == written
    make_plantation(tmp_path / "a", **TINY)
    assert files(tmp_path / "a") == written
    make_plantation(tmp_path / "c", **{**TINY, "seed": 4})
    assert files(tmp_path / "c").keys() == written.keys()
    assert files(tmp_path / "c") != written


def test_layout_and_names(tmp_path):
    plantation = make_plantation(tmp_path / "new" / "data", **TINY)
    expected = {"class_mapping.csv", "labeled.txt"}
    for photo, folder in enumerate(("salak-1-1", "salak-1-2", "salak-1-3", "salak-1-4"), start=1):
        for kind in ("images", "masks") if photo <= 2 else ("images",):
            expected |= {
                f"{folder}/{kind}/DJI_000{photo}_patch_00{row}_00{column}.png"
                for row in range(2)
                for column in range(2)
            }
    assert files(plantation.root).keys() == expected
    assert plantation.root == tmp_path / "new" / "data"
    assert plantation.classes == ClassMap.from_csv(plantation.class_mapping) == SALAK_CLASSES
    assert plantation.labeled_files.read_bytes() == b"DJI_0001.JPG\nDJI_0002.JPG\n"


def test_rows_come_before_columns_in_names(tmp_path):
    root = make_plantation(tmp_path, **TINY, mask_format="index").root
    for kind in ("images", "masks"):
        read = [
            [
                np.asarray(Image.open(root / f"salak-1-1/{kind}/DJI_0001_patch_00{r}_00{c}.png"))
                for c in range(2)
            ]
            for r in range(2)
        ]
        photo = np.concatenate([np.concatenate(row, axis=1) for row in read]).astype(int)
        across_the_cut = np.abs(photo[63] - photo[64]).mean()
        assert across_the_cut < 0.6 * np.abs(photo[63] - photo[0]).mean()


def test_photos_are_spread_evenly(tmp_path):
    sizes = {"photo_size": 64, "patch_size": 64}
    plantation = make_plantation(tmp_path, photos=7, **sizes, unlabeled_folders=1)
    counts = [
        len(list((tmp_path / f"salak-1-{folder}" / "images").iterdir())) for folder in (1, 2, 3)
    ]
    assert sorted(counts) == [2, 2, 3]
    assert len(plantation.labeled_files.read_text().split()) == counts[0] + counts[1]


def test_a_plantation_may_have_no_masks_at_all(tmp_path):
    plantation = make_plantation(tmp_path, **TINY, labeled_folders=0)
    assert not masks(plantation)
    assert plantation.labeled_files.read_bytes() == b""


def test_mask_formats_hold_the_same_indices(tmp_path):
    color, index, index3 = (
        masks(make_plantation(tmp_path / name, **TINY, mask_format=name))
        for name in ("color", "index", "index3")
    )
    assert color.keys() == index.keys() == index3.keys()
    assert len(color) == 8
    for name in color:
        assert index[name].shape == (64, 64)
        assert np.array_equal(decode(color[name]), index[name])
        assert np.array_equal(index3[name], np.stack([index[name]] * 3, axis=2))


def test_shares_are_near_the_real_ones(photos):
    shares = np.array([np.bincount(labels.ravel(), minlength=7) for _, labels in photos]) / 512**2
    ratios = shares.mean(axis=0) / SHARES
    ratios[WATER] = 1.0
    assert np.all((ratios > 0.5) & (ratios < 2))
    assert np.all(np.abs(ratios[BIG] - 1) < 0.25)
    assert 0.002 < shares[:, WATER].mean() < 0.01
    assert np.count_nonzero(shares[:, WATER]) >= 8


def test_labeled_photos_of_the_default_plantation_show_every_class(full):
    shares = shares_by_photo(full)
    assert shares.shape == (6, 7)
    assert np.all(shares.mean(axis=0) > 0.5 * SHARES)
    assert np.all((shares > 0).sum(axis=0) >= 4)


def test_colour_alone_does_not_tell_the_classes_apart(photos):
    known, truth = pixels(photos[:6])
    asked, answer = pixels(photos[6:])
    means = np.stack([known[truth == label].mean(axis=0) for label in range(7)])
    nearest = np.argmin([((asked - mean) ** 2).sum(axis=1) for mean in means], axis=0)
    assert mean_iou(nearest, answer) < 0.45

    def cell(colors):
        return (colors >> 4) @ np.array([256, 16, 1])

    table = np.bincount(cell(known) * 7 + truth, minlength=4096 * 7).reshape(4096, 7)
    assert mean_iou(table.argmax(axis=1)[cell(asked)], answer) < 0.45
