"""Panels on a page."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ignite_salak.report.images import embed, find_panels
from ignite_salak.report.run import read_run


def pixels(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def noise(path, width, height):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def test_a_small_file_is_embedded_as_it_is(tmp_path):
    path = tmp_path / "validation_000500.png"
    noise(path, 40, 30)
    panel = embed(path, "title")
    assert base64.b64decode(panel.uri.partition(",")[2]) == path.read_bytes()
    assert panel.uri.startswith("data:image/png;")
    assert panel.note == f"File: {tmp_path.name}/validation_000500.png"


def test_a_long_file_becomes_a_jpeg(tmp_path):
    path = tmp_path / "a.png"
    noise(path, 400, 300)
    panel = embed(path, "title")
    assert panel.uri.startswith("data:image/jpeg;")
    assert pixels(panel.uri).size == (400, 300)
    assert panel.note.startswith("Reduced to JPEG quality 88; the original is")


def test_a_wide_file_is_narrowed(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (3200, 100)).save(path)
    panel = embed(path, "title")
    assert pixels(panel.uri).size == (1600, 50)
    assert "1600 of 3200 pixels' width" in panel.note


@pytest.mark.parametrize("keep", [0, 60])
def test_a_damaged_file_is_said(tmp_path, keep):
    path = tmp_path / "a.png"
    noise(path, 40, 30)
    path.write_bytes(path.read_bytes()[:keep])
    panel = embed(path, "title")
    assert panel.uri is None
    assert "a.png cannot be read" in panel.note


def test_last_and_best_of_either_kind(tmp_path, runs):
    names = [f"{kind}_{i:06d}.png" for kind in ("validation", "unlabeled") for i in (1, 2, 3)]
    rows = [
        {"iteration": i, "validation/mIoU": score} for i, score in ((1, 0.1), (2, 0.9), (3, 0.5))
    ]
    runs.write(tmp_path, config=runs.config(), history=rows, panels=names)
    run = read_run(tmp_path)
    titles = [panel.title for panel in find_panels(run)]
    assert titles[:2] == [
        "Validation patches, best evaluation (iteration 2)",
        "Validation patches, last evaluation (iteration 3)",
    ]
    assert len(titles) == 4
    assert [panel.title for panel in find_panels(run, last_only=True)] == [titles[1], titles[3]]
    rows[2]["validation/mIoU"] = 1.0
    runs.write(tmp_path, history=rows)
    titles = [panel.title for panel in find_panels(read_run(tmp_path))]
    assert titles[0] == "Validation patches, best and last evaluation (iteration 3)"
    assert len(titles) == 2
