"""Photos become patches that hold exactly what the photos and their masks hold."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.grid import Grid
from ignite_salak.data.manifest import Manifest
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.patchify import check_photos, nearest_class, patchify

HEIGHT, WIDTH, SIZE = 40, 56, 32
GRID = Grid(SIZE, SIZE)


@pytest.fixture
def photo():
    """Pixels and class indices of a photo that is no multiple of the patch size."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    labels[:3, :4] = 255
    return image, labels


@pytest.fixture
def source(tmp_path, photo, save, classes):
    """Two photos with a mask, one of them nested, and one without."""
    source = tmp_path / "photos"
    image, labels = photo
    save(source / "f1" / "images" / "DJI_0001.png", image)
    save(source / "f1" / "masks" / "DJI_0001.png", labels)
    save(source / "f1" / "images" / "DJI_0002.PNG", image)
    save(source / "a" / "b" / "images" / "DJI_0001.png", image)
    save(source / "a" / "b" / "masks" / "DJI_0001_mask.png", labels)
    classes.to_csv(source / "class_mapping.csv")
    return source


def assemble(folder, stem, read):
    tiles = {}
    for path in folder.glob(f"{stem}_patch_*.png"):
        row, column = (int(part) for part in path.stem.split("_")[-2:])
        tiles[row, column] = read(path)
    rows, columns = (1 + max(place[axis] for place in tiles) for axis in (0, 1))
    assert len(tiles) == rows * columns
    return np.concatenate(
        [np.concatenate([tiles[r, c] for c in range(columns)], axis=1) for r in range(rows)]
    )


class TestPatchify:
    @pytest.fixture
    def output(self, tmp_path, source, classes):
        output = tmp_path / "out" / "data"
        self.summary = patchify(source, output, classes, GRID)
        return output

    def test_files_and_summary(self, output, classes):
        files = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
        names = [f"patch_{row:03d}_{column:03d}.png" for row in range(2) for column in range(2)]
        assert files == {
            "class_mapping.csv",
            "patchify.json",
            *(f"f1/images/DJI_0001_{name}" for name in names),
            *(f"f1/images/DJI_0002_{name}" for name in names),
            *(f"f1/masks/DJI_0001_{name}" for name in names),
            *(f"a/b/images/DJI_0001_{name}" for name in names),
            *(f"a/b/masks/DJI_0001_{name}" for name in names),
        }
        summary = self.summary
        assert (summary.photos, summary.masks) == (3, 2)
        assert (summary.patches, summary.masked_patches, summary.dropped) == (12, 8, 0)
        assert self.summary.pixels.sum() == 2 * (HEIGHT * WIDTH - 12)
        assert ClassMap.from_csv(output / "class_mapping.csv") == classes

    def test_images_and_black_padding(self, output, photo):
        image = assemble(output / "f1" / "images", "DJI_0001", read_image)
        np.testing.assert_array_equal(image[:HEIGHT, :WIDTH], photo[0])
        assert image.shape == (64, 64, 3)
        assert not image[HEIGHT:].any() and not image[:, WIDTH:].any()

    def test_masks_and_255_padding(self, output, photo, classes):
        mask = assemble(
            output / "a" / "b" / "masks", "DJI_0001", lambda p: MaskReader(classes).read(p)[0]
        )
        np.testing.assert_array_equal(mask[:HEIGHT, :WIDTH], photo[1])
        assert (mask[HEIGHT:] == 255).all() and (mask[:, WIDTH:] == 255).all()

    def test_255_survives_the_png(self, output):
        # Of a palette under 17 colours PIL would store 4 bits a pixel: 255 would become 15.
        path = output / "f1" / "masks" / "DJI_0001_patch_001_001.png"
        assert path.read_bytes()[24] == 8  # bit depth in the header
        assert np.asarray(Image.open(path))[-1, -1] == 255

    def test_masks_show_the_colours_of_the_classes(self, output, photo, classes):
        tile = Image.open(output / "f1" / "masks" / "DJI_0001_patch_000_000.png")
        labels = photo[1][:SIZE, :SIZE]
        known = labels != 255
        np.testing.assert_array_equal(
            np.asarray(tile.convert("RGB"))[known], classes.palette[labels[known]]
        )

    def test_reordered_class_list_reads_the_same_classes(self, output, photo, classes):
        order = [2, 0, 1]
        other = ClassMap(*(tuple(v[i] for i in order) for v in (classes.names, classes.colors)))
        mask = assemble(output / "f1" / "masks", "DJI_0001", lambda p: MaskReader(other).read(p)[0])
        known = photo[1] != 255
        names = np.array(other.names)[mask[:HEIGHT, :WIDTH][known]]
        np.testing.assert_array_equal(names, np.array(classes.names)[photo[1][known]])
        assert (mask[HEIGHT:] == 255).all() and (mask[:3, :4] == 255).all()

    def test_result_is_a_data_root(self, output):
        index = scan_patches(output)
        names = [index.source_name(source) for source in range(len(index.sources))]
        assert names == ["a/b/DJI_0001", "f1/DJI_0001", "f1/DJI_0002"]
        assert index.has_mask.sum() == 8 and index.orphan_masks == 0


@pytest.mark.parametrize("mask_format", ["auto", "color"])
def test_masks_in_colours(tmp_path, source, photo, save, classes, mask_format):
    labels = np.where(photo[1] == 255, 0, photo[1])
    for path in source.rglob("masks/*.png"):
        save(path, classes.palette[labels])
    patchify(source, tmp_path / "out", classes, GRID, mask_format=mask_format)
    mask = assemble(
        tmp_path / "out" / "f1" / "masks", "DJI_0001", lambda p: np.asarray(Image.open(p))
    )
    np.testing.assert_array_equal(mask[:HEIGHT, :WIDTH], labels)


def test_photos_of_patch_names_stay_photos(tmp_path, save, classes):
    save(tmp_path / "in" / "images" / "X_patch_000_001.png", np.ones((16, 16, 3), np.uint8))
    patchify(tmp_path / "in", tmp_path / "out", classes, Grid(16, 16))
    index = scan_patches(tmp_path / "out")
    assert index.source_name(0) == "X_patch_000_001"


def test_few_unlisted_colours_become_255(tmp_path, source, photo, save, classes, caplog):
    pixels = classes.palette[np.where(photo[1] == 255, 0, photo[1])]
    pixels[5, :10] = (1, 2, 3)
    for path in source.rglob("masks/*.png"):
        save(path, pixels)
    summary = patchify(source, tmp_path / "out", classes, GRID)
    assert summary.unlisted == {(1, 2, 3): 20} and "1 2 3 (20 pixels)" in caplog.text
    tile = np.asarray(Image.open(tmp_path / "out/f1/masks/DJI_0001_patch_000_000.png"))
    assert (tile[5, :10] == 255).all() and (tile[6] != 255).all()


class TestRefusals:
    @pytest.mark.parametrize("content", ["file.txt", "images/a.png"])
    def test_output_that_is_not_empty(self, tmp_path, source, classes, content):
        output = tmp_path / "out"
        (output / content).parent.mkdir(parents=True)
        (output / content).write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="out exists and is not empty"):
            patchify(source, output, classes, GRID)
        assert [path for path in output.rglob("*") if path.is_file()] == [output / content]

    def test_output_that_is_a_file(self, tmp_path, source, classes):
        (tmp_path / "out").write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            patchify(source, tmp_path / "out", classes, GRID)
        assert (tmp_path / "out").read_bytes() == b"mine"

    def test_empty_output_is_fine(self, tmp_path, source, classes):
        (tmp_path / "out").mkdir()
        assert patchify(source, tmp_path / "out", classes, Grid(64, 64)).patches == 3

    def test_too_many_unlisted_colours(self, tmp_path, source, save, classes):
        save(source / "f1" / "masks" / "DJI_0001.png", np.full((HEIGHT, WIDTH, 3), (1, 2, 3), "u1"))
        with pytest.raises(ValueError, match="commonest is 1 2 3"):
            patchify(source, tmp_path / "out", classes, GRID)
        assert not (tmp_path / "out").exists()

    def test_mask_out_of_range(self, tmp_path, source, save, classes):
        path = save(source / "f1" / "masks" / "DJI_0001.png", np.full((HEIGHT, WIDTH), 3, np.uint8))
        with pytest.raises(BadFileError, match="index 3 is out of range") as caught:
            patchify(source, tmp_path / "out", classes, GRID)
        assert str(caught.value).startswith(str(path)) and not (tmp_path / "out").exists()

    def test_mask_of_another_size(self, tmp_path, source, save, classes):
        path = save(source / "f1" / "masks" / "DJI_0001.png", np.zeros((WIDTH, HEIGHT), np.uint8))
        with pytest.raises(
            BadFileError, match=r"mask is 40 x 56 pixels, its image .*DJI_0001.png 56 x 40"
        ) as caught:
            patchify(source, tmp_path / "out", classes, GRID)
        assert str(caught.value).startswith(str(path))

    def test_bad_photo(self, tmp_path, source, classes):
        path = source / "f1" / "images" / "DJI_0002.PNG"
        path.write_bytes(b"")
        with pytest.raises(BadFileError, match="is empty") as caught:
            patchify(source, tmp_path / "out", classes, GRID)
        assert str(caught.value).startswith(str(path))

    def test_no_photos(self, tmp_path, classes):
        (tmp_path / "in").mkdir()
        with pytest.raises(FileNotFoundError, match="images"):
            patchify(tmp_path / "in", tmp_path / "out", classes, GRID)

    def test_output_inside_the_photos(self, source, classes):
        with pytest.raises(ValueError, match="lies inside the folder of the photos"):
            patchify(source, source / "f1" / "out", classes, GRID)

    def test_workers(self, tmp_path, source, classes):
        with pytest.raises(ValueError, match="--num-workers 0"):
            patchify(source, tmp_path / "out", classes, GRID, workers=0)

    def test_no_patch_at_all(self, tmp_path, source, classes):
        with pytest.raises(ValueError, match="--patch-size 64 with --edge drop"):
            patchify(source, tmp_path / "out", classes, Grid(64, 64, "drop"))
        assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_a_black_photo_loses_its_empty_patches(tmp_path, save, classes):
    image, labels = np.zeros((40, 48, 3), np.uint8), np.ones((40, 48), np.uint8)
    image[20, 20] = (0, 0, 1)
    save(tmp_path / "in" / "images" / "a.png", image)
    save(tmp_path / "in" / "masks" / "a.png", labels)
    summary = patchify(tmp_path / "in", tmp_path / "out", classes, Grid(16, 16))
    assert (summary.patches, summary.masked_patches, summary.dropped) == (1, 1, 8)
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in _pngs(tmp_path))
    assert files == ["images/a_patch_001_001.png", "masks/a_patch_001_001.png"]


def test_a_black_photo_keeps_its_patches_where_black_is_content(tmp_path, save, classes):
    save(tmp_path / "in" / "images" / "a.png", np.zeros((40, 48, 3), np.uint8))
    options = (classes, Grid(16, 16))
    expected = check_photos(tmp_path / "in", *options, black_is_nodata=False)
    summary = patchify(tmp_path / "in", tmp_path / "out", *options, black_is_nodata=False)
    for each in (expected, summary):
        assert (each.patches, each.dropped) == (9, 0)
    settings = json.loads((tmp_path / "out" / "patchify.json").read_text("utf-8"))["settings"]
    assert settings["black is nodata"] is False


def test_the_summary_is_written_too(tmp_path, source, classes):
    patchify(source, tmp_path / "out", classes, GRID)
    report = json.loads((tmp_path / "out" / "patchify.json").read_text(encoding="utf-8"))
    assert (report["photos"], report["patches"], report["patches with mask"]) == (3, 12, 8)
    assert report["settings"]["patch stride"] == SIZE
    assert sum(entry["share"] for entry in report["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert report["ignored pixels"] == 2 * 12


def test_nearest_class(classes):
    assert nearest_class((250, 60, 0), classes) == "water"
    assert nearest_class((0, 0, 30), classes) == "background"


def _pngs(folder):
    return (folder / "out").rglob("*.png")


def content(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


class TestResume:
    @pytest.fixture
    def broken(self, source, photo, save):
        """The second photo is cut short: its header is whole, its pixels are not."""
        (source / "f1" / "images" / "DJI_0002.PNG").unlink()
        path = save(source / "f1" / "images" / "DJI_0002.JPG", photo[0], quality=95)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return path, whole

    def test_a_bad_photo_keeps_the_others_and_the_next_run_goes_on(
        self, tmp_path, source, classes, broken
    ):
        path, whole = broken
        with pytest.raises(BadFileError, match="the others are cut: repair it") as caught:
            patchify(source, tmp_path / "out", classes, GRID)
        assert str(caught.value).startswith(str(path)) and not (tmp_path / "out").exists()
        first = tmp_path / "out.partial" / "f1" / "images" / "DJI_0001_patch_000_000.png"
        os.utime(first, (1, 1))
        path.write_bytes(whole)
        summary = patchify(source, tmp_path / "out", classes, GRID)
        assert (summary.patches, summary.resumed, summary.masked_patches) == (12, 8, 8)
        done = tmp_path / "out" / "f1" / "images" / first.name
        assert done.stat().st_mtime == 1  # not written again
        patchify(source, tmp_path / "other", classes, GRID)
        assert content(tmp_path / "out") == content(tmp_path / "other")
        assert {p.name for p in tmp_path.iterdir()} == {"photos", "out", "other"}

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"grid": Grid(16, SIZE)}, "begun with patch size 32, now it is 16"),
            ({"grid": Grid(SIZE, 8)}, "begun with patch stride 32, now it is 8"),
            ({"grid": Grid(SIZE, SIZE, "shift")}, "begun with patch edge pad, now it is shift"),
            ({"group": "source"}, "begun with group keep, now it is source"),
            ({"mask_format": "color"}, "begun with mask format index, now it is color"),
            ({"black_is_nodata": False}, "begun with black is nodata true, now it is false"),
        ],
    )
    def test_other_settings_are_refused(self, tmp_path, source, classes, broken, other, message):
        with pytest.raises(BadFileError):
            patchify(source, tmp_path / "out", classes, GRID)
        before = content(tmp_path / "out.partial")
        with pytest.raises(ValueError, match=message):
            patchify(source, tmp_path / "out", classes, **({"grid": GRID} | other))
        assert content(tmp_path / "out.partial") == before

    @pytest.mark.parametrize("change", ["image", "mask", "gone"])
    def test_changed_photos_are_refused(self, tmp_path, source, classes, broken, change):
        with pytest.raises(BadFileError):
            patchify(source, tmp_path / "out", classes, GRID)
        if change == "gone":
            (source / "f1" / "images" / "DJI_0001.png").unlink()
        else:
            os.utime(source / "f1" / f"{change}s" / "DJI_0001.png", (5, 5))
        with pytest.raises(ValueError, match=r"f1/DJI_0001.png .*has changed.*delete"):
            patchify(source, tmp_path / "out", classes, GRID)

    @pytest.mark.slow
    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
    def test_killed_and_continued(self, tmp_path, save, classes):
        rng = np.random.default_rng(0)
        for number in range(6):
            pixels = rng.integers(0, 256, (400, 600, 3)).astype(np.uint8)
            save(tmp_path / "in" / "images" / f"{number}.png", pixels)
        classes.to_csv(tmp_path / "in" / "class_mapping.csv")
        command = [sys.executable, "-m", "experiments.patchify", "in", "--output", "out"]
        flags = ["--patch-size", "16", "--num-workers", "1"]
        process = subprocess.Popen([*command, *flags], cwd=tmp_path, stderr=subprocess.DEVNULL)
        manifest = tmp_path / "out.partial" / Manifest.NAME
        deadline = time.monotonic() + 120
        while not (manifest.exists() and manifest.read_bytes().count(b"\n") > 2):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out").exists()
        grid = Grid(16, 16)
        summary = patchify(tmp_path / "in", tmp_path / "out", classes, grid, workers=1)
        assert 0 < summary.resumed < summary.patches == 6 * 25 * 38
        patchify(tmp_path / "in", tmp_path / "other", classes, grid)
        assert content(tmp_path / "out") == content(tmp_path / "other")


class TestGeoTIFF:
    """An orthomosaic with a nodata corner and its mask, through the real entry."""

    @pytest.fixture
    def ortho(self, tmp_path, classes):
        rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
        rng = np.random.default_rng(0)
        self.image = rng.integers(1, 256, (300, 50, 3)).astype(np.uint8)
        self.labels = rng.integers(0, 3, (300, 50)).astype(np.uint8)
        self.image[:20] = 0
        for kind, pixels in (("images", self.image), ("masks", classes.palette[self.labels])):
            (tmp_path / "in" / kind).mkdir(parents=True)
            path = tmp_path / "in" / kind / "field.tif"
            with rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=300,
                width=50,
                count=3,
                dtype="uint8",
                crs="EPSG:32749",
                transform=rasterio.Affine(1, 0, 5, 0, -1, 9),
                nodata=0 if kind == "images" else None,
            ) as file:
                file.write(pixels.transpose(2, 0, 1))
        return tmp_path / "in"

    def test_nodata_is_black_unlabelled_and_dropped(self, tmp_path, ortho, classes):
        summary = patchify(ortho, tmp_path / "out", classes, Grid(16, 16))
        assert (summary.patches, summary.dropped) == (18 * 4, 4)
        assert summary.pixels.sum() == 280 * 50
        image = self.whole(tmp_path / "out" / "images", lambda p: np.asarray(Image.open(p)), 0)
        mask = self.whole(tmp_path / "out" / "masks", lambda p: np.asarray(Image.open(p)), 255)
        np.testing.assert_array_equal(image[:300, :50], self.image)
        assert (mask[:20] == 255).all()
        assert (mask[300:] == 255).all() and (mask[:, 50:] == 255).all()
        np.testing.assert_array_equal(mask[20:300, :50], self.labels[20:])

    def test_black_that_is_no_nodata_becomes_content(self, tmp_path, ortho, classes):
        rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
        with rasterio.open(ortho / "images" / "field.tif", "r+") as file:
            file.nodata = 255
        grid = Grid(16, 16)
        summary = patchify(ortho, tmp_path / "out", classes, grid, black_is_nodata=False)
        assert (summary.patches, summary.dropped) == (19 * 4, 0)
        image = self.whole(tmp_path / "out" / "images", lambda p: np.asarray(Image.open(p)), 0)
        assert (image[:20, :50] == 1).all()
        assert not image[300:].any() and not image[:, 50:].any()

    def whole(self, folder, read, fill):
        result = np.full((304, 64, 3) if fill == 0 else (304, 64), fill, np.uint8)
        for path in folder.glob("field_patch_*.png"):
            row, column = (16 * int(part) for part in path.stem.split("_")[-2:])
            result[row : row + 16, column : column + 16] = read(path)
        return result

    def test_many_tasks_overlap_and_shift(self, tmp_path, ortho, classes):
        summary = patchify(ortho, tmp_path / "out", classes, Grid(16, 8, "shift"), workers=3)
        rows, columns = [min(8 * n, 284) for n in range(37)], [0, 8, 16, 24, 32, 34]
        assert summary.patches + summary.dropped == len(rows) * len(columns)
        for path in (tmp_path / "out" / "images").iterdir():
            row, column = (int(part) for part in path.stem.split("_")[-2:])
            top, left = rows[row], columns[column]
            expected = self.image[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)

    def test_a_plain_mask_ignores_where_the_image_is_nodata(self, tmp_path, ortho, save, classes):
        (ortho / "masks" / "field.tif").unlink()
        save(ortho / "masks" / "field_mask.png", self.labels)
        summary = patchify(ortho, tmp_path / "out", classes, Grid(16, 16))
        assert summary.pixels.sum() == 280 * 50 and summary.ignored == 20 * 50
        mask = self.whole(tmp_path / "out" / "masks", lambda p: np.asarray(Image.open(p)), 255)
        assert (mask[:20] == 255).all()
        np.testing.assert_array_equal(mask[20:300, :50], self.labels[20:])


class TestCheck:
    def test_finds_what_patchify_writes_and_writes_nothing(self, tmp_path, source, classes):
        before = content(tmp_path)
        seen = check_photos(source, classes, GRID)
        assert content(tmp_path) == before and not seen.problems
        written = patchify(source, tmp_path / "out", classes, GRID)
        for name in ("photos", "masks", "patches", "masked_patches", "dropped", "ignored", "sizes"):
            assert getattr(seen, name) == getattr(written, name)
        np.testing.assert_array_equal(seen.pixels, written.pixels)

    def test_disk_space(self, tmp_path, save, classes):
        rng = np.random.default_rng(0)
        for name in "abc":
            pixels = rng.integers(0, 200, (160, 128, 3)).astype(np.uint8)
            save(tmp_path / "in" / "images" / f"{name}.png", pixels)
        seen = check_photos(tmp_path / "in", classes, GRID)
        patchify(tmp_path / "in", tmp_path / "out", classes, GRID)
        real = sum(path.stat().st_size for path in _pngs(tmp_path))
        assert seen.num_bytes == pytest.approx(real, rel=0.05)

    def test_lists_every_problem(self, tmp_path, source, save, classes):
        bad = {
            "empty.jpg": b"",
            "text.png": b"text",
            "cut.png": (source / "f1" / "images" / "DJI_0001.png").read_bytes()[:1000],
        }
        for name, data in bad.items():
            (source / "f1" / "images" / name).write_bytes(data)
        save(source / "f1" / "images" / "deep.png", np.zeros((20, 20), np.uint16))
        save(source / "f1" / "images" / "small.png", np.ones((20, 20, 3), np.uint8))
        save(source / "f1" / "masks" / "small.png", np.ones((20, 21), np.uint8))
        save(source / "f1" / "masks" / "DJI_0002.png", np.full((HEIGHT, WIDTH), 9, np.uint8))
        save(source / "f1" / "masks" / "alone.png", np.ones((20, 20), np.uint8))
        found = check_photos(source, classes, GRID)
        names = ["cut.png", "deep.png", "empty.jpg", "text.png", "small.png", "DJI_0002.png"]
        assert len(found.problems) == len(names)
        for name in names:
            assert sum(f"/{name}:" in problem.replace("\\", "/") for problem in found.problems) == 1
        assert [note for note in found.notes if "alone.png: a mask without its photo" in note]

    def test_too_many_unlisted_colours_are_a_problem(self, source, save, classes):
        path = source / "f1" / "masks" / "DJI_0001.png"
        save(path, np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8))
        found = check_photos(source, classes, GRID)
        assert len(found.problems) == 1 and "commonest is 1 2 3" in found.problems[0]
        assert found.unlisted == {(1, 2, 3): HEIGHT * WIDTH}
