"""Photos find their masks; what does not fit is named before anything is cut."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from ignite_salak.data.survey import find_photos, make_survey

PIXELS = np.full((12, 9, 3), 90, np.uint8)
LABELS = np.ones((12, 9), np.uint8)


@pytest.fixture
def survey(tmp_path, classes):
    def make(group="keep", mask_format="auto"):
        with ThreadPoolExecutor(2) as pool:
            return make_survey(tmp_path, classes, group=group, mask_format=mask_format, pool=pool)

    return make


@pytest.fixture
def turned(tmp_path, save):
    """Returns a function that writes a photo with an EXIF orientation and a mask of some size."""

    def write(orientation, shape):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / "images" / "a.jpg", PIXELS, exif=exif)
        save(tmp_path / "masks" / "a.png", np.ones(shape, np.uint8))

    return write


class TestFindPhotos:
    def found(self, root):
        pairs, orphans = find_photos(root)
        names = [(folder, image.name, mask and mask.name) for folder, image, mask in pairs]
        return names, [path.name for path in orphans]

    def test_layout_of_patches(self, tmp_path, save):
        for name in ("f/images/a.jpg", "f/images/b.JPG", "g/h/images/a.png"):
            save(tmp_path / name, PIXELS)
        for name in ("f/masks/a_mask.png", "f/masks/c.png", "g/h/masks/a.png"):
            save(tmp_path / name, LABELS)
        assert self.found(tmp_path) == (
            [("f", "a.jpg", "a_mask.png"), ("f", "b.JPG", None), ("g/h", "a.png", "a.png")],
            ["c.png"],
        )

    def test_any_folders(self, tmp_path, save):
        for name in ("a.jpg", "100MEDIA/DJI_0001.JPG", "100MEDIA/DJI_0002.JPG", ".thumbs/x.jpg"):
            save(tmp_path / name, PIXELS)
        for name in ("100MEDIA/Masks/DJI_0002_mask.png", "masks/b.png"):
            save(tmp_path / name, LABELS)
        (tmp_path / "notes.txt").write_text("x")
        assert self.found(tmp_path) == (
            [
                ("", "a.jpg", None),
                ("100MEDIA", "DJI_0001.JPG", None),
                ("100MEDIA", "DJI_0002.JPG", "DJI_0002_mask.png"),
            ],
            ["b.png"],
        )

    def test_one_stem_twice(self, tmp_path, save):
        save(tmp_path / "a.jpg", PIXELS)
        save(tmp_path / "a.png", PIXELS)
        with pytest.raises(ValueError, match=r"a.jpg and a.png have the same stem"):
            find_photos(tmp_path)

    def test_nothing(self, tmp_path):
        (tmp_path / "masks").mkdir()
        with pytest.raises(FileNotFoundError, match="holds no photo"):
            find_photos(tmp_path)
        with pytest.raises(FileNotFoundError, match="gone is not a folder"):
            find_photos(tmp_path / "gone")


class TestGroups:
    @pytest.fixture(autouse=True)
    def photos(self, tmp_path, save):
        for name in ("a/images/1.png", "a/images/2.png", "a/images/3.png", "b/images/1.png"):
            save(tmp_path / name, PIXELS)

    @pytest.mark.parametrize(
        ("group", "expected"),
        [
            ("keep", ["a", "a", "a", "b"]),
            ("source", ["a/1", "a/2", "a/3", "b/1"]),
            ("2", ["a-001", "a-001", "a-002", "b-001"]),
            ("9", ["a-001", "a-001", "a-001", "b-001"]),
        ],
    )
    def test_folders(self, survey, group, expected):
        assert [photo.target for photo in survey(group).photos] == expected

    @pytest.mark.parametrize("group", ["", "0", "-1", "1.5", "folder"])
    def test_refusals(self, survey, group):
        with pytest.raises(ValueError, match="--group"):
            survey(group)

    def test_names_that_windows_takes_for_one(self, tmp_path, survey, save):
        save(tmp_path / "c" / "images" / "dji.png", PIXELS)
        save(tmp_path / "c" / "images" / "DJI.png", PIXELS)
        if len(list((tmp_path / "c" / "images").iterdir())) == 1:
            pytest.skip("this file system takes them for one already")
        with pytest.raises(ValueError, match=r"DJI.png and .*dji.png would have patches of the"):
            survey()


class TestMasks:
    def test_counts(self, tmp_path, survey, save, classes):
        colors = classes.palette[LABELS]
        colors[0, :4] = (1, 2, 3)
        save(tmp_path / "images" / "a.png", PIXELS)
        save(tmp_path / "masks" / "a.png", colors)
        result = survey()
        assert (result.found, result.masks, result.reader.mask_format) == (1, 1, "color")
        assert result.pixels.tolist() == [0, 12 * 9 - 4, 0]
        assert result.ignored == 4 and result.unlisted == {(1, 2, 3): 4}

    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_a_mask_that_was_not_turned_with_its_photo_is_refused(
        self, survey, turned, orientation
    ):
        turned(orientation, (12, 9))
        (problem,) = survey().problems
        assert f"turned by its EXIF orientation {orientation} and the mask is not" in problem
        assert "a.png" in problem and "a.jpg" in problem
        turned(orientation, (9, 12))
        assert not survey().problems

    @pytest.mark.parametrize("orientation", [2, 3, 4])
    def test_where_the_size_does_not_tell_the_user_is_told(self, survey, turned, orientation):
        turned(orientation, (12, 9))
        result = survey()
        assert not result.problems
        assert len(result.notes) == 1 and "see that its mask" in result.notes[0]

    def test_upright_photos_are_no_reason_for_a_note(self, survey, turned):
        turned(1, (12, 9))
        assert survey().notes == []

    def test_another_size(self, tmp_path, survey, turned):
        turned(1, (12, 10))
        (problem,) = survey().problems
        assert f"{tmp_path / 'masks' / 'a.png'}: the mask is 10 x 12 pixels" in problem
        assert problem.endswith("9 x 12")

    def test_jpeg_masks_get_a_note(self, tmp_path, survey, save, classes):
        save(tmp_path / "images" / "a.png", PIXELS)
        save(tmp_path / "masks" / "a.jpg", LABELS)
        assert any("JPEG changes the colours" in note for note in survey().notes)

    def test_problems_of_all_files_are_listed(self, tmp_path, survey, save):
        for name in "abc":
            save(tmp_path / "images" / f"{name}.png", PIXELS)
        save(tmp_path / "masks" / "a.png", LABELS * 9)
        (tmp_path / "masks" / "b.png").write_bytes(b"")
        (tmp_path / "images" / "c.png").write_bytes(b"text")
        problems = sorted(survey().problems)
        assert ["c.png" in problems[0], "a.png" in problems[1], "b.png" in problems[2]] == [
            True
        ] * 3
        assert len(problems) == 3


class TestGeoTIFFs:
    @pytest.fixture
    def write(self, tmp_path):
        rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")

        def save(name, pixels, left=5.0, **options):
            bands = np.atleast_3d(pixels).transpose(2, 0, 1)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            with rasterio.open(
                tmp_path / name,
                "w",
                driver="GTiff",
                count=len(bands),
                dtype=bands.dtype,
                height=bands.shape[1],
                width=bands.shape[2],
                crs="EPSG:32749",
                transform=rasterio.Affine(1, 0, left, 0, -1, 9),
                **options,
            ) as file:
                file.write(bands)

        return save

    def test_pair(self, survey, write, classes):
        write("images/a.tif", PIXELS)
        write("masks/a.tif", classes.palette[LABELS])
        result = survey()
        assert not result.problems and result.reader.mask_format == "color"
        assert result.pixels.tolist() == [0, 12 * 9, 0]
        assert result.photos[0].table is not None

    def test_another_ground_names_both(self, survey, write):
        write("images/a.tif", PIXELS)
        write("masks/a.tif", LABELS, left=7.0)
        (problem,) = survey().problems
        assert "does not lie on the ground" in problem
        assert problem.replace("\\", "/").count("/a.tif") == 2

    def test_a_class_as_nodata_gets_a_note(self, survey, write):
        write("images/a.tif", PIXELS)
        write("masks/a.tif", LABELS, nodata=1)
        result = survey()
        assert "1 is a class and the file's nodata value" in result.notes[0]
        write("masks/a.tif", LABELS, nodata=255)
        assert survey().notes == []

    def test_what_stands_for_the_colours_is_noted(self, write, survey, tmp_path):
        write("images/a.tif", PIXELS[..., 0])
        [note] = survey().notes
        assert note.startswith(str(tmp_path / "images" / "a.tif"))
        assert "grey" in note

    def test_unusable_bands_are_named(self, survey, write):
        write("images/a.tif", PIXELS.astype(np.uint16))
        write("images/b.tif", PIXELS)
        write("masks/b.tif", LABELS.astype(np.float32))
        problems = sorted(survey().problems)
        assert "uint16" in problems[0] and "float32" in problems[1] and len(problems) == 2
