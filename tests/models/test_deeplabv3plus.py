import copy

import pytest
import torch
from torch import nn

from ignite_salak.models import DeepLabV3Plus, build_encoder
from ignite_salak.voting import disagreement, vote


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def make(num_classes=4, *, stride=16, **options):
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", output_stride=stride, pretrained=False)
    return DeepLabV3Plus(encoder, num_classes, **{"decoder_channels": 32, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "number of classes 1"),
        ({"num_heads": 0}, "number of heads 0"),
        ({"num_heads": 11}, "number of heads 11"),
        ({"decoder_channels": 0}, "decoder channels 0"),
        ({"head_channels": 0}, "head channels 0"),
        ({"aspp_rates": ()}, r"ASPP rates \(\)"),
        ({"aspp_rates": (6, 0)}, r"ASPP rates \(6, 0\)"),
    ],
)
def test_refuses_bad_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), r"shape \(3, 64, 64\)"),
        (torch.zeros(1, 1, 64, 64), r"shape \(1, 1, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_refuses_bad_images(images, message):
    with pytest.raises(ValueError, match=message):
        make()(images)


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (33, 47), (65, 129), (7, 5)])
@pytest.mark.parametrize("num_heads", [1, 3])
def test_logits_have_the_size_of_the_images(size, num_heads):
    model = make(num_heads=num_heads).eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 3, *size))
    assert logits.shape == (num_heads, 1, 4, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize(("stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36))])
def test_aspp_rates_follow_the_stride(stride, rates):
    def found(model):
        return tuple(
            m.dilation[0]
            for m in model.aspp.modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        )

    assert found(make(stride=stride)) == rates
    assert found(make(stride=stride, aspp_rates=(2, 3))) == (2, 3)


def test_widths():
    model = make(decoder_channels=24)
    assert model.low_level[0].out_channels == 48
    assert model.fuse[0].in_channels == 24 + 48
    assert [head[0].out_channels for head in model.heads] == [12, 12, 12]
    assert make(head_channels=7).heads[0][0].out_channels == 7


def test_images_are_normalised_inside():
    model = make().eval()
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    mean = torch.tensor(model.encoder.mean).view(1, 3, 1, 1)
    std = torch.tensor(model.encoder.std).view(1, 3, 1, 1)
    with torch.no_grad():
        model(mean.expand(1, 3, 32, 32))
        model((mean + std).expand(1, 3, 32, 32))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 32, 32))
    assert not {"mean", "std"} & set(model.state_dict())


def test_heads_are_not_one_linear_classifier():
    model = make()
    rates = []
    for head in model.heads:
        kinds = [type(module) for module in head]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
        assert head[0].kernel_size == (3, 3)
        rates.append(head[3].p)
    assert rates == pytest.approx([0.10, 0.15, 0.20])
    weights = [head[0].weight for head in model.heads]
    assert not torch.equal(weights[0], weights[1])
    # The mean of the heads is not linear in the features that they share.
    model.eval()
    features = torch.randn(2, 32, 8, 8)
    with torch.no_grad():
        first, second, both = (
            torch.stack([head(x) for head in model.heads]).mean(dim=0)
            for x in (features[:1], features[1:], features.sum(dim=0, keepdim=True))
        )
        none = torch.stack([head(torch.zeros_like(features[:1])) for head in model.heads])
    assert not torch.allclose(first + second, both + none.mean(dim=0), atol=1e-2)


def test_heads_disagree_at_the_start_and_after_a_few_steps():
    model = make()
    optimizer = torch.optim.SGD(model.parameter_groups(1e-3), momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 48, 48, generator=generator)
    mask = torch.randint(4, (4, 48, 48), generator=generator)

    def check():
        model.eval()
        with torch.no_grad():
            logits = model(images)
        model.train()
        assert not torch.allclose(logits[0], logits[1], atol=1e-3)
        assert 0 < disagreement(logits) <= 1
        assert not torch.allclose(vote(logits), vote(logits[:2]), atol=1e-4)

    check()
    losses = []
    for _ in range(4):
        loss = sum(nn.functional.cross_entropy(head, mask) for head in model(images))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    check()
    assert losses[-1] < losses[0]


def test_every_parameter_gets_a_gradient():
    model = make()
    model(torch.rand(2, 3, 48, 48)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_parameter_groups_partition_the_parameters():
    model = make()
    groups = model.parameter_groups(0.01, 5.0)
    assert [(group["name"], group["lr"]) for group in groups] == [
        ("encoder", 0.01),
        ("decoder", pytest.approx(0.05)),
    ]
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(parameter) for parameter in model.parameters()}
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.encoder.parameters()}
    assert model.parameter_groups(0.01)[1]["lr"] == pytest.approx(0.1)
    torch.optim.SGD(groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "learning rate 0.0"), ((0.1, -1.0), "decoder multiplier -1.0")],
)
def test_refuses_bad_rates(arguments, message):
    with pytest.raises(ValueError, match=message):
        make().parameter_groups(*arguments)


def test_copy_and_state_dict_give_the_same_logits():
    model = make().eval()
    other = make()
    torch.nn.init.zeros_(other.heads[0][0].weight)
    other.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
        assert torch.equal(other.eval()(images), logits)
        assert torch.equal(copy.deepcopy(model)(images), logits)


def test_autocast():
    model = make().eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.rand(1, 3, 32, 32))
        probabilities = vote(logits)
    assert logits.shape == (3, 1, 4, 32, 32)
    assert probabilities.dtype == torch.float32
