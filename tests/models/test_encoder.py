import torch
from torch import nn

from ignite_salak.models.encoder import Encoder


class Halves(nn.Module):
    """Two maps that tell which is which."""

    def forward(self, images_BCHW):
        return images_BCHW[..., ::4, ::4], -images_BCHW[..., ::8, ::8]


def test_encoder_describes_its_trunk_and_returns_low_before_high():
    encoder = Encoder(
        Halves(), channels=(3, 5), output_stride=8, mean=torch.tensor([0.5, 0.25, 0]), std=[1, 2, 4]
    )
    assert (encoder.low_channels, encoder.high_channels, encoder.output_stride) == (3, 5, 8)
    assert (encoder.mean, encoder.std) == ((0.5, 0.25, 0.0), (1.0, 2.0, 4.0))
    assert all(type(value) is float for value in encoder.mean + encoder.std)
    images = torch.rand(2, 3, 16, 24)
    low, high = encoder(images)
    assert torch.equal(low, images[..., ::4, ::4])
    assert torch.equal(high, -images[..., ::8, ::8])


def test_parameters_live_under_trunk_and_constants_are_no_state():
    encoder = Encoder(nn.Conv2d(3, 4, 1), channels=(3, 4), output_stride=16, mean=(0,), std=(1,))
    assert list(encoder.state_dict()) == ["trunk.weight", "trunk.bias"]
