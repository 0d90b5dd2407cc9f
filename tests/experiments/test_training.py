"""What all recipes share is tested through their scripts; here, the network's seed."""

import torch

from experiments.options import ModelOptions, RunOptions
from experiments.training import build_model
from ignite_salak.models.model_file import ModelSpec


def weights(seed):
    options = ModelOptions(pretrained=False)
    spec = ModelSpec(3, "resnet18", 2, 16, 8)
    return build_model(spec, options, RunOptions(seed=seed), torch.device("cpu")).state_dict()


def test_the_first_weights_are_a_function_of_the_seed():
    torch.manual_seed(99)
    first = weights(1)
    torch.manual_seed(100)
    again, other = weights(1), weights(2)
    assert all(torch.equal(first[name], value) for name, value in again.items())
    assert not torch.equal(first["encoder.trunk.conv1.weight"], other["encoder.trunk.conv1.weight"])
