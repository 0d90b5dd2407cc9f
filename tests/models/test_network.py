"""What all networks share."""

import pytest
import torch
from torch import nn

from ignite_salak.models.encoder import Encoder
from ignite_salak.models.network import Network


class Small(Network):
    """One convolution behind one convolution."""

    def __init__(self, num_classes=2):
        trunk = nn.Conv2d(3, 4, 1)
        super().__init__(
            Encoder(trunk, channels=(4, 4), output_stride=8, mean=(0.5,) * 3, std=(0.25,) * 3),
            num_classes,
        )
        self.head = nn.Conv2d(4, num_classes, 1)


def test_images_are_normalised_by_buffers_that_are_not_saved():
    model = Small()
    assert torch.equal(model.normalise(torch.full((1, 3, 2, 2), 0.75)), torch.ones(1, 3, 2, 2))
    assert not {"mean", "std"} & set(model.state_dict())


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
        Small().normalise(images)


def test_refuses_one_class():
    with pytest.raises(ValueError, match="number of classes 1"):
        Small(num_classes=1)


def test_resizing_keeps_a_ramp_between_pixel_centres():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    wide = Network.resize(ramp, torch.Size((8, 8)))
    assert wide[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]


def test_parameter_groups_partition_the_parameters():
    model = Small()
    encoder, decoder = model.parameter_groups(0.01, 5.0)
    assert (encoder["name"], encoder["lr"]) == ("encoder", 0.01)
    assert (decoder["name"], decoder["lr"]) == ("decoder", pytest.approx(0.05))
    assert [id(p) for p in encoder["params"]] == [id(p) for p in model.encoder.parameters()]
    assert [id(p) for p in decoder["params"]] == [id(p) for p in model.head.parameters()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0,), "learning rate 0.0"), ((0.1, -1.0), "decoder multiplier -1.0")],
)
def test_refuses_bad_rates(arguments, message):
    with pytest.raises(ValueError, match=message):
        Small().parameter_groups(*arguments)
