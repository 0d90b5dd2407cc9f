"""A file answers as the library does, on its own, and says what QGIS wants to know."""

import io
import json
import logging
import sys
import warnings

import pytest
import torch
from torch import nn

from ignite_salak.classes import ClassMap
from ignite_salak.models import export
from ignite_salak.models.export import (
    TileClassifier,
    compare,
    deepness_metadata,
    onnx_runner,
    require_onnx,
    to_json,
    to_onnx,
    to_torch,
    torch_runner,
    trace,
)
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.voting import vote

CLASSES = ClassMap(("latar", "sawah é"), ((0, 0, 0), (0, 255, 0)))
TILE = 32


def tiles(count, size=TILE):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def decided(spec, size=TILE):
    """A network with probabilities near 0 and 1, and BatchNorm statistics other than 0 and 1.

    Random weights alone give every class the same probability, whatever the file computes.
    """
    torch.manual_seed(0)
    model = spec.build()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(3):
            model(tiles(4, size))
        for head in model.heads:
            head[-1].weight.mul_(20)
    return TileClassifier(model, vote)


@pytest.fixture(scope="module")
def classifier():
    return decided(ModelSpec(2, "resnet18", num_heads=2, decoder_channels=16)).eval()


@pytest.fixture(scope="module")
def program(classifier):
    return trace(classifier, TILE)


@pytest.fixture(scope="module")
def onnx_content(program):
    pytest.importorskip("onnx")
    return to_onnx(program, deepness_metadata(CLASSES, TILE, resolution=2.5))


class Leaky(nn.Module):
    """Prints, logs, warns, and cannot be traced."""

    def forward(self, images):
        print("a print")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("torch").warning("a record")
        if images.sum() > 0:
            return images
        return -images


# refusals


@pytest.mark.parametrize("size", [-256, 0, 31])
def test_refuses_small_tiles(classifier, size):
    with pytest.raises(ValueError, match=f"--tile-size {size} is not at least 32"):
        trace(classifier, size)


def test_what_cannot_be_traced_is_one_line_and_the_terminal_stays_quiet(capfd):
    with pytest.raises(ValueError, match="the model cannot be traced: ") as caught:
        trace(Leaky(), TILE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 0.0}, "--resolution 0.0"),
        ({"resolution": float("inf")}, "--resolution inf"),
        ({"resolution": float("nan")}, "--resolution nan"),
        ({"overlap": -0.1}, "--overlap -0.1"),
        ({"overlap": 25}, "--overlap 25 is not in 0 to 0.9"),
        ({"threshold": 1.5}, "--threshold 1.5"),
    ],
)
def test_refuses_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        deepness_metadata(CLASSES, TILE, **options)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_packages_come_with_the_way_to_install_them(package, program, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package} .*pip install "ignite-salak\[export\]"'):
        to_onnx(program, {})
    with pytest.raises(ImportError, match=package):
        require_onnx()


def test_an_onnxscript_that_does_not_know_this_torch(program, monkeypatch):
    pytest.importorskip("onnxscript")

    def fail(*args, **options):
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_9_9'")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ImportError, match=r"torch_9_9.*pip install --upgrade onnxscript"):
        to_onnx(program, {})


# answers


@pytest.mark.parametrize("count", [1, 2, 4])
def test_onnx_answers_as_the_library_does(classifier, onnx_content, count):
    images = tiles(count)
    found = onnx_runner(onnx_content)(images)
    with torch.no_grad():
        logits = classifier.model(images)
    votes = (logits[0].softmax(dim=1) + logits[1].softmax(dim=1)) / 2
    assert votes.max() > 0.9  # else a softmax of the mean logits would pass
    assert (votes - logits.mean(dim=0).softmax(dim=1)).abs().max() > 1e-3
    torch.testing.assert_close(found, votes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_torch_file_answers_as_the_library_does(classifier, program, count):
    images = tiles(count)
    with torch.no_grad():
        expected = classifier(images)
    found = torch_runner(to_torch(program, {}))(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "stride"), [("mobilenet_v3_large", 16), ("efficientnet_lite0", 8)]
)
def test_other_encoders(backbone, stride):
    pytest.importorskip("onnx")
    if backbone == "efficientnet_lite0":
        pytest.importorskip("timm")
    spec = ModelSpec(3, backbone, output_stride=stride, decoder_channels=8)
    network = decided(spec, 48)
    run = onnx_runner(to_onnx(trace(network, 48), {}))
    assert not network.training
    assert run(tiles(1, 48)).max() > 0.5
    assert compare(network, run, [tiles(1, 48), tiles(4, 48)]) <= 1e-4


# the file


def test_onnx_file_is_one_that_old_runtimes_read(onnx_content):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(onnx_content)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert not any(onnx.external_data_helper.uses_external_data(t) for t in model.graph.initializer)
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["batch", 3, TILE, TILE], ["batch", 2, TILE, TILE]]
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert names == ["images", "probabilities"]


def test_files_do_not_tell_the_folders_of_this_machine(program, onnx_content):
    folder = export.__file__.replace("\\", "/").rsplit("/ignite_salak/", 1)[0].encode()
    for content in (onnx_content, to_torch(program, {})):
        assert folder not in content.replace(b"\\\\", b"/").replace(b"\\", b"/")
        assert b"stack_trace" not in content


def test_metadata_as_deepness_reads_it(onnx_content):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_content, providers=["CPUExecutionProvider"])
    read = {
        key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()
    }
    assert read == {
        "model_type": "Segmentor",
        "class_names": {"0": "latar", "1": "sawah é"},
        "resolution": 2.5,
        "tile_size": TILE,
        "tiles_size": TILE,
        "tiles_overlap": 25,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    assert isinstance(session.get_inputs()[0].shape[0], str)  # Deepness then asks for the batch
    assert session.get_inputs()[0].shape[1:] == [3, TILE, TILE]


def test_no_resolution_is_made_up():
    values = deepness_metadata(CLASSES, TILE, overlap=0.5, threshold=0.3)
    assert "resolution" not in values
    assert (values["tiles_overlap"], values["seg_thresh"]) == ("50", "0.3")


def test_torch_file_carries_the_metadata(program):
    extra = {"metadata.json": ""}
    torch.export.load(io.BytesIO(to_torch(program, {"a": to_json("é")})), extra_files=extra)
    assert json.loads(extra["metadata.json"]) == {"a": '"é"'}


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"score": float("nan")})


def test_exporters_do_not_talk(program, capfd):
    pytest.importorskip("onnx")
    to_torch(program, {})
    to_onnx(program, {})
    assert capfd.readouterr() == ("", "")


# comparison


def test_compare_returns_the_largest_difference(classifier):
    shifts = iter([1e-5, 5e-5, 2e-5])
    found = compare(classifier, lambda images: classifier(images) + next(shifts), [tiles(1)] * 3)
    assert found == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize("shift", [2e-4, -2e-4, float("nan")])
def test_compare_refuses_what_differs_at_one_pixel_of_the_second_batch(classifier, shift):
    def run(images):
        with torch.no_grad():
            answer = classifier(images)
        if len(images) == 4:
            answer[3, 1, 5, 7] += shift
        return answer

    assert compare(classifier, run, [tiles(1)]) == 0
    with pytest.raises(ValueError, match="for a batch of 4, over 1e-04: nothing was written"):
        compare(classifier, run, [tiles(1), tiles(4)])


def test_compare_refuses_another_shape(classifier):
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 32\), the library with \(1, 2, 32, 32\)"):
        compare(classifier, lambda images: classifier(images)[:, :1], [tiles(1)])
