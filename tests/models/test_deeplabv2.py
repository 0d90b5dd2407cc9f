import pytest
import torch
from torch import nn

from ignite_salak.models.deeplabv2 import DeepLabV2
from ignite_salak.models.encoders import build_encoder
from ignite_salak.voting import vote


def make(num_classes=4, *, stride=8, **options):
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", output_stride=stride, pretrained=False)
    return DeepLabV2(encoder, num_classes, **options)


@pytest.mark.parametrize("rates", [(), (6, 0)])
def test_refuses_bad_rates(rates):
    with pytest.raises(ValueError, match="ASPP rates"):
        make(aspp_rates=rates)


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (7, 5)])
def test_logits_are_those_of_one_head_and_have_the_size_of_the_images(size):
    model = make().eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (1, 2, 4, *size)
    torch.testing.assert_close(vote(logits), logits[0].softmax(dim=1))


@pytest.mark.parametrize(("stride", "rates"), [(8, (6, 12, 18, 24)), (16, (3, 6, 9, 12))])
def test_rates_follow_the_stride(stride, rates):
    model = make(stride=stride)
    assert tuple(branch.dilation[0] for branch in model.pyramid) == rates
    assert {branch.kernel_size for branch in model.pyramid} == {(3, 3)}
    assert len(make(aspp_rates=(2, 3)).pyramid) == 2


def test_the_logits_of_the_branches_are_added():
    model = make().eval()
    for number, branch in enumerate(model.pyramid):
        nn.init.zeros_(branch.weight)
        nn.init.constant_(branch.bias, 10.0**number)
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(logits, torch.full_like(logits, 1111.0))


def test_a_branch_sees_as_far_as_its_rate():
    model = make(aspp_rates=(2,)).eval()
    features = torch.zeros(1, 512, 9, 9)
    features[0, :, 4, 4] = 1.0
    with torch.no_grad():
        found = model.pyramid[0](features) - model.pyramid[0].bias[:, None, None]
    touched = found[0].abs().sum(0).nonzero().tolist()
    assert touched == [[y, x] for y in (2, 4, 6) for x in (2, 4, 6)]


def test_every_trained_parameter_gets_a_gradient():
    model = make()
    model(torch.rand(2, 3, 48, 48)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        make()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
