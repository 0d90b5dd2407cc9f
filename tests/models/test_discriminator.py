import pytest
import torch
from torch import nn

from ignite_salak.models.discriminator import Discriminator
from ignite_salak.models.synchronized import GlobalDropout, synchronize


def make(**options):
    torch.manual_seed(0)
    return Discriminator(3, **{"width": 4, **options})


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 3, "width": 0}])
def test_refuses_bad_numbers(options):
    with pytest.raises(ValueError, match="0 of a discriminator"):
        Discriminator(**options)


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (33, 47)])
def test_one_score_per_patch_of_any_size(size):
    odds, features = make()(torch.rand(5, 3, *size), torch.rand(5, 3, *size))
    assert odds.shape == (5,)
    assert features.shape == (5, 32)
    assert odds.dtype == features.dtype == torch.float32


def test_its_layers_are_the_papers():
    layers = Discriminator(num_classes=7).convolutions
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [
        (10, 64),
        (64, 128),
        (128, 256),
        (256, 512),
    ]
    for layer in layers:
        assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))


def test_the_same_layers_written_out_give_the_same():
    model = make().eval()
    images, maps = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    layers = [m for conv in model.convolutions for m in (conv, nn.LeakyReLU(0.2))]
    expected = nn.Sequential(*layers)(torch.cat([images, maps], 1)).mean(dim=(2, 3))
    odds, features = model(images, maps)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(odds, model.output(expected)[:, 0])


def test_dropout_drops_half_of_the_channels_whole_and_in_training_only():
    model = make()
    features = torch.rand(64, 50, 3, 3) + 1.0
    dropped = model.dropout(features)
    ratio = dropped / features
    assert torch.equal(ratio, ratio[..., :1, :1].expand_as(ratio))
    assert set(ratio.unique().tolist()) == {0.0, 2.0}
    assert 0.45 < (ratio == 0).float().mean() < 0.55
    assert torch.equal(model.eval().dropout(features), features)


def test_several_ranks_can_share_its_dropout(monkeypatch):
    monkeypatch.setattr("ignite_salak.models.synchronized.rank_count", lambda: 2)
    model = synchronize(make(), torch.device("cpu"))
    assert [type(m) for m in model.modules() if isinstance(m, nn.Dropout)] == [GlobalDropout]


def test_it_learns_to_tell_true_maps_from_flat_ones():
    model = make(width=16)
    model.dropout.elements.p = 0.0  # with it, hundreds of steps are needed
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        images = torch.rand(8, 3, 16, 16, generator=generator)
        true = nn.functional.one_hot(images.argmax(1), 3).movedim(3, 1).float()
        maps = torch.cat([true[:4], torch.full((4, 3, 16, 16), 1 / 3)])
        odds, _ = model(images, maps)
        target = torch.tensor([1.0] * 4 + [0.0] * 4)
        loss = nn.functional.binary_cross_entropy_with_logits(odds, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    odds, _ = model.eval()(images, maps)
    assert odds[:4].min() > 0 > odds[4:].max()


def test_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        odds, features = make()(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    assert odds.dtype == features.dtype == torch.float32
