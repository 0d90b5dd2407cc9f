"""A model file carries all that is needed to use it."""

import pytest
import torch

from ignite_salak.classes import ClassMap
from ignite_salak.models.model_file import ModelSpec, load_model, save_model

CLASSES = ClassMap(("background", "crop"), ((0, 0, 0), (0, 255, 0)), (None, 0.55))
SPEC = ModelSpec(2, "resnet18", num_heads=2, decoder_channels=16)


def test_round_trip(tmp_path):
    path = tmp_path / "model.pth"
    model = SPEC.build().eval()
    save_model(path, model, SPEC, CLASSES, {"iteration": 7, "scores": {"mIoU": 0.5}})
    saved = load_model(path)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(saved.model(images), model(images))
    assert saved.spec == SPEC
    assert saved.classes == CLASSES
    assert saved.facts == {"iteration": 7, "scores": {"mIoU": 0.5}}
    assert not saved.model.training


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = SPEC.build()
    for name in ("a", "b"):
        save_model(tmp_path / name, model, SPEC, CLASSES, {"iteration": 7})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_model_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "checkpoint.pth"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_model(path)
    torch.save({"model": {}}, path)
    with pytest.raises(ValueError, match="no model file"):
        load_model(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="no mapping"):
        load_model(path)
    save_model(path, SPEC.build(), ModelSpec(3, "resnet18", 2, 16, 16), CLASSES, {})
    with pytest.raises(ValueError, match="no model file") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_deeplabv2_round_trip(tmp_path):
    path = tmp_path / "model.pth"
    spec = ModelSpec(2, "resnet18", num_heads=1, output_stride=8, architecture="deeplabv2")
    model = spec.build().eval()
    save_model(path, model, spec, CLASSES, {})
    saved = load_model(path)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(saved.model(images), model(images))
    assert saved.spec == spec
    assert type(saved.model).__name__ == "DeepLabV2"


def change_spec(path, change):
    content = torch.load(path, weights_only=True)
    change(content["spec"])
    torch.save(content, path)


def test_a_file_of_before_there_was_a_choice_is_a_deeplabv3plus(tmp_path):
    path = tmp_path / "model.pth"
    save_model(path, SPEC.build(), SPEC, CLASSES, {})
    for later in ("architecture", "aspp_rates"):
        change_spec(path, lambda spec, name=later: spec.pop(name))
    assert load_model(path).spec == SPEC
    assert type(load_model(path).model).__name__ == "DeepLabV3Plus"


@pytest.mark.parametrize(
    ("heads", "architecture", "pyramid"), [(2, "deeplabv3plus", "aspp"), (1, "deeplabv2", "")]
)
def test_the_rates_of_the_pyramid_travel_with_the_file(tmp_path, heads, architecture, pyramid):
    path = tmp_path / "model.pth"
    spec = ModelSpec(2, "resnet18", heads, 16, 16, architecture, aspp_rates=(2, 3))
    save_model(path, spec.build(), spec, CLASSES, {})
    saved = load_model(path)
    assert saved.spec == spec
    dilations = {
        layer.dilation[0]
        for name, layer in saved.model.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and "encoder" not in name and name.startswith(pyramid)
    }
    assert dilations - {1} == {2, 3}


def test_an_unknown_architecture_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"'segformer'; possible are deeplabv3plus, deeplabv2"):
        ModelSpec(2, architecture="segformer")
    with pytest.raises(ValueError, match="number of heads 3: deeplabv2 has one"):
        ModelSpec(2, num_heads=3, architecture="deeplabv2")
    path = tmp_path / "model.pth"
    save_model(path, SPEC.build(), SPEC, CLASSES, {})
    change_spec(path, lambda spec: spec.update(architecture="segformer"))
    with pytest.raises(ValueError, match=r"model\.pth .*'segformer'"):
        load_model(path)
