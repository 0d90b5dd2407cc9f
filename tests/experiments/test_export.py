"""The export script, from a model file to files that other programs run."""

import io
import json
import sys

import pytest
import torch

from experiments.console import run_script
from experiments.export import main
from ignite_salak.classes import ClassMap
from ignite_salak.models.export import onnx_runner, torch_runner
from ignite_salak.models.model_file import ModelSpec, load_model, save_model
from ignite_salak.voting import vote

CLASSES = ClassMap(("background", "crop", "road"), ((0, 0, 0), (0, 255, 0), (9, 9, 9)))
SPEC = ModelSpec(3, "resnet18", num_heads=2, decoder_channels=16)


@pytest.fixture
def model_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "run" / "best.model.pth"
    path.parent.mkdir()
    scores = {"mIoU": 0.5, "IoU/road": float("nan")}
    facts = {"iteration": 7, "scores": scores, "input_size": 48, "sources": {"labelled": ["a"]}}
    save_model(path, SPEC.build(), SPEC, CLASSES, facts)
    return path


def export(*flags):
    return run_script(main, [str(flag) for flag in flags])


def folder_of(path):
    return sorted(entry.name for entry in path.parent.iterdir())


def test_both_formats_from_a_model_file(model_file, shared_plantation, capfd):
    pytest.importorskip("onnx")
    status = export(
        model_file, "--format=both", "--resolution=3", "--check-images", shared_plantation.root
    )
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    assert folder_of(model_file) == ["best.model.onnx", "best.model.pt2", "best.model.pth"]
    images = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        expected = vote(load_model(model_file).model(images))
    for name, load in (("best.model.onnx", onnx_runner), ("best.model.pt2", torch_runner)):
        content = model_file.with_name(name).read_bytes()
        torch.testing.assert_close(load(content)(images), expected, rtol=0, atol=1e-4)
        assert f"{name}: {len(content) / 1e6:.1f} MB" in out
    assert "images float32 [batch, 3, 48, 48]" in out
    assert "probabilities float32 [batch, 3, 48, 48]" in out
    assert "opset 18" in out
    assert "on 10 tiles, batches of 1 and 4" in out
    assert "resampled to 3 cm per pixel" in out
    assert len(out.splitlines()) == 5


def test_torch_alone_needs_no_onnx_and_says_where_the_model_is_from(
    model_file, monkeypatch, capsys
):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, package, None)
    output = model_file.with_name("karta.v2")
    assert export(model_file, "--format=torch", "--output", output, "--tile-size=64") == 0
    assert folder_of(model_file) == ["best.model.pth", "karta.v2.pt2"]
    out = capsys.readouterr().out
    assert "[batch, 3, 64, 64]" in out
    assert "random tiles only; --check-images" in out
    assert "QGIS" not in out
    extra = {"metadata.json": ""}
    content = model_file.with_name("karta.v2.pt2").read_bytes()
    torch.export.load(io.BytesIO(content), extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    assert json.loads(metadata["tile_size"]) == 64
    origin = json.loads(metadata["ignite_salak"])
    assert origin["iteration"] == 7
    assert origin["scores"] == {"mIoU": 0.5, "IoU/road": None}
    assert origin["classes"]["colors"][2] == [9, 9, 9]
    assert origin["architecture"]["backbone"] == "resnet18"
    assert "sources" not in origin


def test_without_a_resolution_the_user_is_told(model_file, capsys):
    pytest.importorskip("onnx")
    assert export(model_file, "--output", model_file.with_suffix(".onnx")) == 0
    assert "set the resolution" in capsys.readouterr().out
    assert folder_of(model_file) == ["best.model.onnx", "best.model.pth"]


def test_a_file_that_differs_is_not_written_and_the_old_one_stays(model_file, monkeypatch, capsys):
    pytest.importorskip("onnx")
    old = model_file.with_suffix(".onnx")
    old.write_bytes(b"old")
    monkeypatch.setattr("ignite_salak.models.export.TOLERANCE", -1.0)
    assert export(model_file) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: the exported model differs from the library by")
    assert old.read_bytes() == b"old"
    assert folder_of(model_file) == ["best.model.onnx", "best.model.pth"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output", "{folder}/none/model.onnx"), "folder {folder}/none does not exist"),
        (("--output", "{folder}/model.pt2", "--format=onnx"), "does not fit --format onnx"),
        (("--tile-size=0",), "--tile-size 0"),
        (("--tile-size=16",), "--tile-size 16 is not at least 32"),
        (("--resolution=-1",), "--resolution -1.0"),
        (("--overlap=1.0",), "--overlap 1.0"),
        (("--threshold=2",), "--threshold 2.0"),
        (("--check-images", "{folder}/none"), "--check-images {folder}/none is not a folder"),
        (("--check-images", "{folder}"), "--check-images {folder} holds no .png"),
    ],
)
def test_bad_flags_are_one_line(model_file, capsys, flags, message):
    pytest.importorskip("onnx")
    folder = model_file.parent
    assert export(model_file, *(flag.format(folder=folder.as_posix()) for flag in flags)) == 2
    err = capsys.readouterr().err.replace("\\", "/")
    assert message.format(folder=folder.as_posix()) in err
    assert err.count("\n") == 1
    assert folder_of(model_file) == ["best.model.pth"]


def test_bad_models_are_one_line(model_file, capsys):
    checkpoint = model_file.with_name("checkpoint.pth")
    assert export(checkpoint, "--format=torch") == 2
    assert "checkpoint.pth does not exist" in capsys.readouterr().err
    torch.save({"model": {}}, checkpoint)
    assert export(checkpoint, "--format=torch") == 2
    err = capsys.readouterr().err
    assert "is no model file of ignite_salak" in err
    assert err.count("\n") == 1


def test_missing_onnx_is_told_before_anything_is_computed(model_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("experiments.export.load_model", lambda path: pytest.fail("read"))
    assert export(model_file) == 2
    assert 'pip install "ignite-salak[export]"' in capsys.readouterr().err
