"""BatchNorm and dropout over two processes against torch's own over the whole batch."""

import copy

import pytest
import torch
from torch import nn

from ignite_salak.models.model_file import ModelSpec
from ignite_salak.models.synchronized import GlobalBatchNorm2d, GlobalDropout, synchronize
from ignite_salak.ranks import rank, rank_count
from tests.processes import in_two_ranks

BATCH = 6


def batch():
    generator = torch.Generator().manual_seed(1)
    images = 3.0 + 2.0 * torch.randn(BATCH, 4, 5, 7, generator=generator)
    return images.contiguous(memory_format=torch.channels_last)


def layers():
    torch.manual_seed(2)
    norm = nn.BatchNorm2d(4)
    plain = nn.BatchNorm2d(4, affine=False, momentum=None)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.uniform_(-1.0, 1.0)
    return nn.Sequential(norm, nn.Dropout(0.3), nn.Conv2d(4, 4, 1), plain)


def learn(model, images):
    """Two batches, backwards; the loss is a sum, so gradients add up over the ranks."""
    images.requires_grad_(True)
    outputs = []
    for number in range(2):
        torch.manual_seed(number)
        output = model(images * (1 + number))
        (output**3).sum().backward()
        outputs.append(output.detach())
    gradients = {name: value.grad for name, value in model.named_parameters()}
    return {
        "outputs": outputs,
        "images": images.grad,
        "gradients": gradients,
        "buffers": dict(model.named_buffers()),
    }


def part():
    model = synchronize(layers(), torch.device("cpu"))
    kinds = [type(layer) for layer in model]
    assert kinds == [GlobalBatchNorm2d, GlobalDropout, nn.Conv2d, GlobalBatchNorm2d]
    share = BATCH // rank_count()
    images = batch()[rank() * share :][:share].clone(memory_format=torch.preserve_format)
    found = learn(model, images)
    model.eval()
    return {**found, "judged": model(batch()).detach()}


def test_two_processes_do_what_one_does(tmp_path):
    model = layers()
    expected = learn(model, batch())
    expected["judged"] = model.eval()(batch()).detach()
    first, second = in_two_ranks(part, tmp_path)
    for number, whole in enumerate(expected["outputs"]):
        both = torch.cat([first["outputs"][number], second["outputs"][number]])
        assert torch.equal(both == 0, whole == 0)
        assert torch.allclose(both, whole, atol=1e-5)
    both = torch.cat([first["images"], second["images"]])
    assert torch.allclose(both, expected["images"], rtol=1e-4, atol=1e-3)
    for name, gradient in expected["gradients"].items():
        summed = first["gradients"][name] + second["gradients"][name]
        assert torch.allclose(summed, gradient, rtol=1e-4, atol=1e-3), name
    for other in (first, second):
        assert torch.allclose(other["judged"], expected["judged"], atol=1e-5)
        for name, value in expected["buffers"].items():
            assert torch.allclose(other["buffers"][name], value, rtol=1e-5, atol=1e-6), name


def test_one_process_is_left_alone():
    model = layers()
    kinds = [type(layer) for layer in model]
    assert synchronize(model, torch.device("cpu")) is model
    assert [type(layer) for layer in model] == kinds


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setattr("ignite_salak.models.synchronized.rank_count", lambda: 2)


def test_names_and_content_stay(two_ranks):
    model = ModelSpec(3, "resnet18", 2, 16, 8).build(pretrained=False)
    before = copy.deepcopy(model.state_dict())
    synchronize(model, torch.device("cpu"))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    left = [type(module) for module in model.modules()]
    assert nn.BatchNorm2d not in left
    assert nn.Dropout not in left


def test_timms_activations_survive(two_ranks):
    timm_layers = pytest.importorskip("timm.layers")
    model = nn.Sequential(timm_layers.BatchNormAct2d(4))
    expected = model.eval()(batch())
    assert (expected >= 0).all()
    assert torch.equal(synchronize(model, torch.device("cpu"))(batch()), expected)
    assert isinstance(model[0], GlobalBatchNorm2d)


def test_an_unknown_batch_norm_is_refused(two_ranks):
    with pytest.raises(ValueError, match="BatchNorm1d"):
        synchronize(nn.Sequential(nn.BatchNorm1d(4)), torch.device("cpu"))
