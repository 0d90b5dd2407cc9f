"""Maps of photos and GeoTIFFs, by the script."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.console import run_script
from experiments.predict import main
from ignite_salak.classes import ClassMap
from ignite_salak.models.model_file import ModelSpec, load_model, save_model
from ignite_salak.voting import predict_once

rasterio = pytest.importorskip("rasterio")

ROOT = Path(__file__).parents[2]
CLASSES = ClassMap(("background", "salak", "jalan"), ((0, 0, 0), (30, 160, 60), (230, 200, 40)))
SPEC = ModelSpec(3, "resnet18", 2, 16, 8)


@pytest.fixture(scope="module")
def make_checkpoint(tmp_path_factory):
    """Returns a function that writes a model whose classes all occur in noise."""

    def make(seed=0, **facts):
        torch.manual_seed(seed)
        model, images = SPEC.build().train(), torch.rand(4, 3, 64, 64)
        with torch.no_grad():
            model(images)
            for number, head in enumerate(model.heads):
                spread = model.eval()(images)[number]
                head[-1].weight *= 4 / spread.std()
                head[-1].bias -= model(images)[number].mean(dim=(0, 2, 3))
        path = tmp_path_factory.mktemp("model") / "best_model_ema.pth"
        save_model(path, model, SPEC, CLASSES, facts)
        return path

    return make


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    """A model file; do not change it."""
    return make_checkpoint()


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path, save):
    """Two photos of one name in two folders, and a mask."""
    root = tmp_path / "photos"
    save(root / "a" / "images" / "1.png", noise(60, 80))
    save(root / "b" / "1.jpg", noise(50, 40))
    save(root / "a" / "masks" / "1.png", noise(60, 80))
    return root


@pytest.fixture
def orthomosaic(tmp_path):
    """700 x 300 pixels of 10 cm in UTM 49S; the first 40 columns hold no image."""
    path = tmp_path / "ortho.tif"
    pixels = noise(700, 300).transpose(2, 0, 1).copy()
    pixels[:, :, :40] = 0
    profile = {"driver": "GTiff", "count": 3, "height": 700, "width": 300, "dtype": "uint8"}
    transform = rasterio.transform.from_origin(430_000.0, 9_160_000.0, 0.1, 0.1)
    with rasterio.open(
        path, "w", crs="EPSG:32749", transform=transform, nodata=0, photometric="RGB", **profile
    ) as dataset:
        dataset.write(pixels)
    return path


def predict(checkpoint, output, *arguments):
    given = ["--checkpoint", checkpoint, "--output", output, "--threads", "1", *arguments]
    return run_script(main, [str(argument) for argument in given])


def table(output):
    with (output / "areas.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(output):
    return sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())


def read_map(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


RECORDS = ["areas.csv", "class_mapping.csv", "predict.json"]


def test_a_photo_gets_the_map_that_the_model_makes_of_it(checkpoint, tmp_path, save, capsys):
    photo = save(tmp_path / "DJI_0462.png", noise(60, 80))
    assert predict(checkpoint, tmp_path / "maps", photo, "--confidence") == 0
    assert files(tmp_path / "maps") == sorted(
        [*RECORDS, *(f"DJI_0462_{n}" for n in ("classes.png", "confidence.png", "overlay.jpg"))]
    )
    images = torch.from_numpy(noise(60, 80)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        confidence, labels = predict_once(load_model(checkpoint).model, images)[0].max(dim=0)
    with Image.open(tmp_path / "maps" / "DJI_0462_classes.png") as image:
        found = np.asarray(image)
    assert len(np.unique(found)) == 3
    assert (found == labels.numpy()).mean() > 0.999
    with Image.open(tmp_path / "maps" / "DJI_0462_confidence.png") as image:
        assert abs(np.asarray(image) - 100 * confidence.numpy()).max() < 0.51
    rows = table(tmp_path / "maps")
    assert [int(row["pixels"]) for row in rows] == np.bincount(found.ravel()).tolist()
    assert [row["class"] for row in rows] == list(CLASSES.names)
    assert {row["hectares"] for row in rows} == {""}
    out = capsys.readouterr().out
    assert "DJI_0462: no hectares: it has no CRS" in out
    assert "0.0 megapixels in" in out
    assert "1 of 1 inputs are mapped" in out
    assert ClassMap.from_csv(tmp_path / "maps" / "class_mapping.csv") == CLASSES


def test_a_geotiff_keeps_georeference_and_nodata(checkpoint, orthomosaic, tmp_path, capsys):
    flags = ["--window", "128", "--confidence", "--polygons", "geojson"]
    assert predict(checkpoint, tmp_path / "maps", orthomosaic, *flags) == 0
    kinds = ("classes.qml", "classes.tif", "confidence.tif", "overlay.jpg", "polygons.geojson")
    assert files(tmp_path / "maps") == sorted([*RECORDS, *(f"ortho_{kind}" for kind in kinds)])
    with (
        rasterio.open(orthomosaic) as before,
        rasterio.open(tmp_path / "maps" / "ortho_classes.tif") as labels,
        rasterio.open(tmp_path / "maps" / "ortho_confidence.tif") as confidence,
    ):
        for after in (labels, confidence):
            assert (after.crs, after.transform) == (before.crs, before.transform)
            assert (after.shape, after.nodata) == (before.shape, 255)
            assert np.array_equal(after.read(1) == 255, before.dataset_mask() == 0)
        assert labels.colormap(1)[1] == (*CLASSES.colors[1], 255)
        assert labels.tags()["CLASS_2"] == "jalan"
        counts = np.bincount(labels.read(1).ravel())[:3]
    rows = table(tmp_path / "maps")
    assert [int(row["pixels"]) for row in rows] == counts.tolist()
    hectares = [float(row["hectares"]) for row in rows]
    assert hectares == pytest.approx(counts * 0.01 / 10_000, rel=2e-3, abs=1e-4)
    polygons = json.loads((tmp_path / "maps" / "ortho_polygons.geojson").read_text("utf-8"))
    covered = sum(feature["properties"]["hectares"] for feature in polygons["features"])
    assert covered == pytest.approx(counts.sum() * 0.01 / 10_000, rel=2e-3)
    assert "hectares" in capsys.readouterr().out


def test_folders_keep_their_structure_and_what_is_done_is_passed_over(
    checkpoint, photos, tmp_path, capsys
):
    output = photos / "maps"
    assert predict(checkpoint, output, photos) == 0
    made = ["a/images/1_classes.png", "a/images/1_overlay.jpg", "b/1_classes.png"]
    assert files(output) == sorted([*made, "b/1_overlay.jpg", *RECORDS])
    first = (output / "areas.csv").read_bytes()
    stamp = (output / "b/1_classes.png").stat().st_mtime_ns
    assert "2 inputs, a/images/1 to b/1: no hectares" in capsys.readouterr().out
    assert predict(checkpoint, output, photos) == 0
    assert (output / "areas.csv").read_bytes() == first
    assert (output / "b/1_classes.png").stat().st_mtime_ns == stamp
    assert "2 of 2 inputs are finished already" in capsys.readouterr().out
    (output / "b/1_classes.png").unlink()
    assert predict(checkpoint, output, photos) == 0
    assert (output / "b/1_classes.png").exists()
    assert (output / "areas.csv").read_bytes() == first


def test_maps_of_other_settings_or_inputs_are_not_mixed(
    checkpoint, make_checkpoint, photos, tmp_path, save, capsys
):
    output, photo = tmp_path / "maps", photos / "b" / "1.jpg"
    assert predict(checkpoint, output, photo, "--confidence") == 0
    assert predict(checkpoint, output, photo, "--confidence", "--overlap", "0.25") == 2
    assert "overlap 0.5, now 0.25: give another --output, or --overwrite" in capsys.readouterr().err
    other = make_checkpoint(seed=1)
    assert predict(other, output, photo, "--confidence") == 2
    assert "checkpoint (SHA-256)" in capsys.readouterr().err
    namesake = save(tmp_path / "c" / "1.png", noise(20, 20))
    assert predict(checkpoint, output, namesake, "--confidence") == 2
    assert "1.jpg, not of" in capsys.readouterr().err
    assert predict(other, output, namesake, "--overwrite") == 0
    assert files(output) == sorted([*RECORDS, "1_classes.png", "1_overlay.jpg"])
    assert {row["input"] for row in table(output)} == {str(namesake.resolve())}
    (output / "predict.json").write_text("{}", encoding="utf-8")
    assert predict(other, output, namesake) == 2
    assert "predict.json is damaged" in capsys.readouterr().err


def test_bad_files_are_named_or_skipped(checkpoint, photos, tmp_path, save, capsys):
    (photos / "b" / "0.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(photos / "b" / "deep.tif")
    assert predict(checkpoint, tmp_path / "maps", photos) == 2
    error = capsys.readouterr().err
    assert error.strip().splitlines()[-1].startswith("error: ")
    assert "0.png: the file is no image" in error
    assert not (tmp_path / "maps" / "areas.csv").exists()
    assert predict(checkpoint, tmp_path / "maps", photos, "--skip-bad-files") == 0
    out = capsys.readouterr().out
    assert "1 of 4 inputs are finished already" in out
    assert "b/0: skipped as a bad file" in out
    assert "b/deep: skipped as a bad file" in out
    assert {row["map"] for row in table(tmp_path / "maps")} == {"a/images/1", "b/1"}


@pytest.mark.parametrize(
    ("facts", "flags", "side"),
    [
        ({}, [], 64),
        ({"input_size": 32}, ["--patch-size", "64"], 32),
        ({"input_size": 64}, [], 16),
        ({"input_size": 32}, ["--scale", "2"], 128),
        ({"input_size": None}, ["--scale", "0.5"], 32),
    ],
)
def test_the_network_sees_the_scale_of_its_training(
    make_checkpoint, tmp_path, save, monkeypatch, capsys, facts, flags, side
):
    sides = []
    forward = torch.nn.Module.__call__

    def watch(module, *arguments):
        if type(module).__name__ == "DeepLabV3Plus":
            sides.append(arguments[0].shape[-1])
        return forward(module, *arguments)

    photo = save(tmp_path / "1.png", noise(100, 100))
    path = make_checkpoint(**facts)
    monkeypatch.setattr(torch.nn.Module, "__call__", watch)
    assert predict(path, tmp_path / "maps", photo, "--window", "64", *flags) == 0
    assert set(sides) == {side}
    told = "trained with --input-size" in capsys.readouterr().out
    assert told == (bool(facts.get("input_size")) and "--scale" not in flags)


def test_augmentation_at_test_time_makes_the_map_of_a_turned_photo_the_turned_map(
    checkpoint, tmp_path, save
):
    save(tmp_path / "in" / "straight.png", noise(64, 64))
    save(tmp_path / "in" / "turned.png", np.ascontiguousarray(np.rot90(noise(64, 64))))
    for number, flags in enumerate(([], ["--tta"])):
        assert predict(checkpoint, tmp_path / str(number), tmp_path / "in", *flags) == 0
    share = []
    for number in range(2):
        straight, turned = (
            read_map(tmp_path / str(number) / f"{name}_classes.png")
            for name in ("straight", "turned")
        )
        share.append((np.rot90(straight) == turned).mean())
    assert share[1] > 0.999
    assert share[0] < 0.99


def test_black_pixels_are_mapped_and_mentioned_or_left_out(checkpoint, tmp_path, save, capsys):
    pixels = noise(60, 60)
    pixels[:10] = 0
    photo = save(tmp_path / "1.png", pixels)
    assert predict(checkpoint, tmp_path / "one", photo) == 0
    assert "over 1% of its pixels are pure black" in capsys.readouterr().out
    assert (read_map(tmp_path / "one" / "1_classes.png") != 255).all()
    assert predict(checkpoint, tmp_path / "two", photo, "--black-is-nodata") == 0
    assert "pure black" not in capsys.readouterr().out
    assert np.array_equal(
        read_map(tmp_path / "two" / "1_classes.png") == 255, (pixels == 0).all(axis=2)
    )


def test_a_raster_without_crs_has_no_polygons_and_says_so(checkpoint, tmp_path, save, capsys):
    photo = save(tmp_path / "1.png", noise(30, 30))
    flags = ["--polygons", "geojson", "--no-overlay"]
    assert predict(checkpoint, tmp_path / "maps", photo, *flags) == 0
    assert "1: no hectares and no polygons: it has no CRS" in capsys.readouterr().out
    assert files(tmp_path / "maps") == sorted(["1_classes.png", *RECORDS])


def test_wrong_arguments_are_one_line(checkpoint, photos, tmp_path, capsys):
    for flags, message in (
        ([photos / "gone.png"], "gone.png does not exist"),
        ([photos, "--window", "8"], "--window 8 is not at least 16"),
        ([photos, "--overlap", "1"], "--overlap 1.0 is not in 0 to 0.9"),
        ([photos, "--scale", "0"], "--scale 0.0 is not a number above 0"),
        ([photos, "--device", "tpu9"], "--device tpu9 cannot be used"),
    ):
        assert predict(checkpoint, tmp_path / "maps", *flags) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    assert predict(photos / "b" / "1.jpg", tmp_path / "maps", photos) == 2
    assert "expected a run's best_model_ema.pth" in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()


def test_a_missing_georeference_package_is_named(checkpoint, orthomosaic, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match=r'pip install "ignite-salak\[geo\]"'):
        main([str(orthomosaic), f"--checkpoint={checkpoint}", f"--output={tmp_path / 'maps'}"])


def test_little_memory_on_the_device_is_an_error_with_the_remedy(
    checkpoint, photos, tmp_path, monkeypatch, capsys
):
    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("experiments.predict.image_to_device", too_much)
    assert predict(checkpoint, tmp_path / "maps", photos) == 2
    assert "take a smaller --batch-size or --window" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from experiments import predict
from ignite_salak.inference.maps import GeoTiffMap
write = GeoTiffMap.write
def write_and_die(self, top, values):
    write(self, top, values)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
GeoTiffMap.write = write_and_die
predict.main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file_and_is_continued(
    checkpoint, orthomosaic, photos, tmp_path, capsys
):
    output = tmp_path / "maps"
    flags = ["--window", "64", "--confidence", str(photos / "b" / "1.jpg"), str(orthomosaic)]
    given = [f"--checkpoint={checkpoint}", f"--output={output}", "--threads=1", *flags]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *given], cwd=ROOT, capture_output=True, check=False
    )
    assert killed.returncode not in (0, 1, 2), killed.stderr
    left = [name for name in files(output) if name.startswith("ortho")]
    assert left
    assert all(".partial." in name for name in left)
    assert not (output / "areas.csv").exists()
    assert predict(checkpoint, output, *flags) == 0
    assert "1 of 2 inputs are finished already" in capsys.readouterr().out
    assert predict(checkpoint, tmp_path / "whole", *flags) == 0
    assert files(output) == files(tmp_path / "whole")
    assert np.array_equal(
        read_map(output / "ortho_classes.tif"), read_map(tmp_path / "whole" / "ortho_classes.tif")
    )
    assert (output / "areas.csv").read_bytes() == (tmp_path / "whole" / "areas.csv").read_bytes()


MEASURED = """
import resource, sys
from experiments import predict
predict.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_memory_does_not_grow_with_the_height(checkpoint, tmp_path):
    peaks = []
    for height in (512, 12_800):  # whole, the probabilities of the higher one take 157 MB
        path = tmp_path / f"{height}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=height, width=1024, dtype="uint8", nodata=0,
            crs="EPSG:32749", transform=rasterio.transform.from_origin(4e5, 9e6, 1, 1),
            photometric="RGB", compress="deflate", tiled=True, blockxsize=512, blockysize=512,
        ) as dataset:  # fmt: skip
            for top in range(0, height, 512):
                rows = np.full((3, 512, 1024), 90, np.uint8)
                dataset.write(rows, window=((top, top + 512), (0, 1024)))
        given = [f"--checkpoint={checkpoint}", f"--output={tmp_path / 'maps'}", "--threads=1"]
        flags = ["--overlap=0", "--batch-size=1", "--scale=0.25", str(path)]
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *given, *flags],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 60, peaks
