"""Photos become patches that hold exactly what the photos and their masks hold."""

import numpy as np
import pytest
from PIL import Image

from experiments.console import run_script
from experiments.patchify import main
from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.patches import scan_patches
from ignite_salak.data.patchify import cut, patchify

HEIGHT, WIDTH, SIZE = 40, 56, 32


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


class TestCut:
    def test_places_and_padding(self):
        pixels = np.arange(1, 7).reshape(2, 3)
        squares = {(row, column): square.tolist() for row, column, square in cut(pixels, 2, 9)}
        assert squares == {(0, 0): [[1, 2], [4, 5]], (0, 1): [[3, 9], [6, 9]]}

    @pytest.mark.parametrize(("shape", "count"), [((4, 4), 1), ((4, 8, 3), 2), ((5, 9, 3), 6)])
    def test_number_of_squares(self, shape, count):
        squares = [square for _, _, square in cut(np.zeros(shape, np.uint8), 4, 0)]
        assert len(squares) == count
        assert all(square.shape == (4, 4, *shape[2:]) for square in squares)


class TestPatchify:
    @pytest.fixture
    def output(self, tmp_path, source, classes):
        output = tmp_path / "out" / "data"
        self.summary = patchify(source, output, classes, patch_size=SIZE)
        return output

    def test_files_and_summary(self, output, classes):
        files = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
        names = [f"patch_{row:03d}_{column:03d}.png" for row in range(2) for column in range(2)]
        assert files == {
            "class_mapping.csv",
            *(f"f1/images/DJI_0001_{name}" for name in names),
            *(f"f1/images/DJI_0002_{name}" for name in names),
            *(f"f1/masks/DJI_0001_{name}" for name in names),
            *(f"a/b/images/DJI_0001_{name}" for name in names),
            *(f"a/b/masks/DJI_0001_{name}" for name in names),
        }
        assert (self.summary.photos, self.summary.patches, self.summary.masks) == (3, 12, 8)
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
    patchify(source, tmp_path / "out", classes, patch_size=SIZE, mask_format=mask_format)
    mask = assemble(
        tmp_path / "out" / "f1" / "masks", "DJI_0001", lambda p: np.asarray(Image.open(p))
    )
    np.testing.assert_array_equal(mask[:HEIGHT, :WIDTH], labels)


def test_photos_of_patch_names_stay_photos(tmp_path, save, classes):
    save(tmp_path / "in" / "images" / "X_patch_000_001.png", np.ones((16, 16, 3), np.uint8))
    patchify(tmp_path / "in", tmp_path / "out", classes, patch_size=16)
    index = scan_patches(tmp_path / "out")
    assert index.source_name(0) == "X_patch_000_001"


def test_few_unlisted_colours_become_255(tmp_path, source, photo, save, classes, caplog):
    pixels = classes.palette[np.where(photo[1] == 255, 0, photo[1])]
    pixels[5, :10] = (1, 2, 3)
    for path in source.rglob("masks/*.png"):
        save(path, pixels)
    summary = patchify(source, tmp_path / "out", classes, patch_size=SIZE)
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
            patchify(source, output, classes)
        assert [path for path in output.rglob("*") if path.is_file()] == [output / content]

    def test_output_that_is_a_file(self, tmp_path, source, classes):
        (tmp_path / "out").write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            patchify(source, tmp_path / "out", classes)
        assert (tmp_path / "out").read_bytes() == b"mine"

    def test_empty_output_is_fine(self, tmp_path, source, classes):
        (tmp_path / "out").mkdir()
        assert patchify(source, tmp_path / "out", classes, patch_size=64).patches == 3

    def test_too_many_unlisted_colours(self, tmp_path, source, save, classes):
        save(source / "f1" / "masks" / "DJI_0001.png", np.full((HEIGHT, WIDTH, 3), (1, 2, 3), "u1"))
        with pytest.raises(ValueError, match="commonest is 1 2 3"):
            patchify(source, tmp_path / "out", classes)
        assert not (tmp_path / "out").exists()

    def test_mask_out_of_range(self, tmp_path, source, save, classes):
        path = save(source / "f1" / "masks" / "DJI_0001.png", np.full((HEIGHT, WIDTH), 3, np.uint8))
        with pytest.raises(BadFileError, match="index 3 is out of range") as caught:
            patchify(source, tmp_path / "out", classes)
        assert str(caught.value).startswith(str(path)) and not (tmp_path / "out").exists()

    def test_mask_of_another_size(self, tmp_path, source, save, classes):
        path = save(source / "f1" / "masks" / "DJI_0001.png", np.zeros((WIDTH, HEIGHT), np.uint8))
        with pytest.raises(
            BadFileError, match="mask is 40 x 56 pixels, its image 56 x 40"
        ) as caught:
            patchify(source, tmp_path / "out", classes)
        assert str(caught.value).startswith(str(path))

    def test_bad_photo(self, tmp_path, source, classes):
        path = source / "f1" / "images" / "DJI_0002.PNG"
        path.write_bytes(b"")
        with pytest.raises(BadFileError, match="is empty") as caught:
            patchify(source, tmp_path / "out", classes)
        assert str(caught.value).startswith(str(path))

    def test_patch_size(self, tmp_path, source, classes):
        with pytest.raises(ValueError, match="--patch-size 15"):
            patchify(source, tmp_path / "out", classes, patch_size=15)

    def test_no_photos(self, tmp_path, classes):
        (tmp_path / "in").mkdir()
        with pytest.raises(FileNotFoundError, match="images"):
            patchify(tmp_path / "in", tmp_path / "out", classes)


class TestScript:
    def test_cuts_and_prints(self, tmp_path, source, capsys):
        output = tmp_path / "out"
        main(
            [str(source), "--output", str(output), "--patch-size", str(SIZE), "--num-workers", "1"]
        )
        printed = capsys.readouterr().out
        assert "3 photos -> 12 patches, 8 of them with masks" in printed
        shares = [float(line.split()[-6]) for line in printed.splitlines()[1:]]
        assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.1)
        assert len(scan_patches(output)) == 12

    def test_other_class_mapping(self, tmp_path, source, classes):
        (source / "class_mapping.csv").rename(tmp_path / "elsewhere.csv")
        mapping = ["--class-mapping", str(tmp_path / "elsewhere.csv")]
        main([str(source), "--output", str(tmp_path / "out"), *mapping, "--mask-format", "index"])
        assert ClassMap.from_csv(tmp_path / "out" / "class_mapping.csv") == classes

    @pytest.mark.parametrize("missing", ["input", "class_mapping.csv"])
    def test_errors_are_one_line(self, tmp_path, source, capsys, missing):
        (source / "class_mapping.csv").unlink()
        given = source if missing == "class_mapping.csv" else tmp_path / "input"
        assert run_script(main, [str(given), "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and missing in error
        assert not (tmp_path / "out").exists()


def test_a_photo_that_cannot_be_cut_leaves_no_output_and_the_next_run_starts_over(
    tmp_path, classes, save
):
    source, output = tmp_path / "in", tmp_path / "out"
    save(source / "images" / "a.png", np.full((20, 20, 3), 9, np.uint8))
    bad = source / "images" / "b.png"
    bad.write_bytes(b"no image")
    with pytest.raises(BadFileError, match="the file is no image"):
        patchify(source, output, classes, patch_size=16)
    assert not output.exists()
    bad.unlink()
    assert patchify(source, output, classes, patch_size=16).patches == 4
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
