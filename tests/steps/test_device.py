"""Moving images and choosing the precision."""

import pytest
import torch

from ignite_salak.steps.device import autocast, image_to_device, resolve_precision


def test_images_are_scaled_to_0_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    moved = image_to_device(images, "cpu")
    assert moved.dtype == torch.float32
    assert moved.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert images.flatten().tolist() == [0, 51, 255]


def test_precision():
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ValueError, match="--precision 'fp64'"):
        resolve_precision("fp64", "cpu")
    layer = torch.nn.Linear(2, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with autocast("cpu", precision):
            assert layer(torch.ones(1, 2)).dtype == dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_is_bf16_where_the_gpu_has_it():
    known = torch.cuda.is_bf16_supported(including_emulation=False)
    expected = "bf16" if known else "fp32"
    assert resolve_precision("auto", "cuda") == expected
