"""Compiled once per shape, with the same results and names."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ignite_salak.models.compiling import compile_network
from ignite_salak.models.model_file import ModelSpec


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_each_shape_is_compiled_once_and_nothing_else_changes():
    torch.manual_seed(0)
    model = ModelSpec(3, "resnet18", 2, 16, 8).build(pretrained=False).eval()
    names = list(model.state_dict())
    plain = copy.deepcopy(model)
    counter = CompileCounter()
    compile_network(model, backend=counter)
    assert list(model.state_dict()) == names
    sizes = range(32, 32 + 16 * 10, 16)  # more than torch compiles by itself
    for _ in range(2):
        for size in sizes:
            images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
            with torch.no_grad():
                assert torch.allclose(model(images), plain(images), atol=1e-5)
    assert counter.frame_count == len(sizes)
    assert list(copy.deepcopy(model).state_dict()) == names
