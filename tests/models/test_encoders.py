import pytest
import torch
import torchvision
from torch import nn
from torchvision.ops import SqueezeExcitation

from ignite_salak.models.encoders import ENCODERS, build_encoder

TORCHVISION = [name for name in ENCODERS if not name.startswith("efficientnet_lite")]


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


def test_weights_file_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth do not exist"):
        make("resnet18", weights_file=tmp_path / "none.pth")


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
def test_dilated_features_pass_through_the_undilated_ones(calibrated, name, stride):
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


# weights and normalisation


def test_normalisation_of_the_weights():
    assert make("resnet18").mean == (0.485, 0.456, 0.406)
    assert make("mobilenet_v3_large").std == (0.229, 0.224, 0.225)
    lite = make("efficientnet_lite0")
    assert (lite.mean, lite.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_offline_torchvision(unreachable, assert_offline_message, monkeypatch, name):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(FileNotFoundError, match="name resolution failed") as caught:
        make(name, pretrained=True)
    assert_offline_message(caught.value, name)


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


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "timm/resnet10t"])
def test_weights_file_of_another_network(name, tmp_path):
    torch.save(whole_network("mobilenet_v3_large").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth do not fit '{name}'") as caught:
        make(name, weights_file=tmp_path / "other.pth")
    assert "missing: conv" in str(caught.value)
    assert "unexpected: features.0.0.weight, " in str(caught.value)
    assert "\n" not in str(caught.value)
