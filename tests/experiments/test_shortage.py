"""What errors and devices say of memory that ran out."""

import numpy as np
import pytest
import torch

from experiments.shortage import Shortage, read_shortage
from tests.experiments.memory_errors import (
    CPU,
    CUDA,
    GIB,
    GPU_TEXT,
    LINUX_TEXT,
    NUMPY_TEXT,
    WINDOWS_TEXT,
    WORKER_TEXT,
)


@pytest.mark.usefixtures("_no_device")
def test_numbers_of_a_gpu_come_from_the_error():
    found = read_shortage(torch.OutOfMemoryError(GPU_TEXT), CUDA)
    assert found == Shortage("cuda:0", 5 * GIB // 2, 16 * GIB, 5 * GIB // 4, 29 * GIB // 2)
    assert found.held_by_others == 0  # 0.25 GiB
    assert not found.on_host


def test_numbers_that_the_error_lacks_come_from_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    found = read_shortage(RuntimeError("CUDA error: out of memory"), CUDA)
    assert found == Shortage("cuda:0", None, 16 * GIB, GIB, 3 * GIB)
    assert found.held_by_others == 12 * GIB


@pytest.mark.usefixtures("_host")
@pytest.mark.parametrize(
    ("error", "device", "asked"),
    [
        (RuntimeError(LINUX_TEXT), CPU, 4 * GIB),
        (RuntimeError(WINDOWS_TEXT), CPU, 3 * GIB // 2),
        (RuntimeError(LINUX_TEXT), CUDA, 4 * GIB),
        (MemoryError(), CUDA, None),
        (MemoryError(WORKER_TEXT), CPU, None),
        (RuntimeError(NUMPY_TEXT), CUDA, 3 * GIB),
        (RuntimeError("std::bad_alloc"), CUDA, None),
        (RuntimeError("could not create a primitive"), CPU, None),
    ],
)
def test_main_memory(error, device, asked):
    found = read_shortage(error, device)
    assert found == Shortage("main memory", asked, 8 * GIB, GIB // 2)
    assert found.on_host
    assert found.held_by_others == 0


def test_real_errors_of_torch_numpy_and_python_are_known():
    calls = {
        "torch": lambda: torch.empty(10**15),
        "numpy": lambda: np.empty(10**15),
        "python": lambda: bytearray(10**15),
    }
    asked = {}
    for name, call in calls.items():
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            call()
        asked[name] = read_shortage(caught.value, CPU).asked
    assert asked["torch"] == 4 * 10**15
    assert asked["numpy"] == pytest.approx(8e15, rel=0.01)
    assert asked["python"] is None
