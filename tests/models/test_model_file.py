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
