"""What the tests of encoders share."""

from urllib.error import URLError

import pytest
import torch
from torch import nn


@pytest.fixture
def calibrated():
    """Returns a function that sets an encoder to float64 and spreads its features.

    BatchNorm takes its statistics from one batch: they keep the features of random weights apart.
    """

    def calibrate(encoder):
        encoder.double()
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            encoder.train()(torch.rand(2, 3, 64, 64, dtype=torch.float64))
        return encoder.eval()

    return calibrate


@pytest.fixture
def unreachable():
    """Returns a function that stands for any way into the network."""

    def fail(*args, **options):
        raise URLError("name resolution failed\nsecond line")

    return fail


@pytest.fixture
def assert_offline_message():
    """Returns a function that checks the one line on weights out of reach."""

    def check(error, name):
        assert "\n" not in str(error)
        assert repr(name) in str(error)
        assert "--encoder-weights FILE" in str(error)
        assert "--no-pretrained" in str(error)

    return check
