"""Peak memory sees what was freed again, and its watcher ends."""

import time

import pytest
import torch

from experiments.peak_memory import PeakMemory

CPU = torch.device("cpu")


def test_peak_memory_sees_what_was_freed_again():
    size = 256 * 2**20
    with PeakMemory(CPU) as memory:
        block = torch.ones(size // 4)
        deadline = time.perf_counter() + 10
        while memory.peak < memory.before + size // 2 and time.perf_counter() < deadline:
            block.add_(1)
        del block
    found = memory.in_gib()
    assert 0.1 < found["own"] < 0.5
    assert found["own"] == pytest.approx(found["peak"] - found["before"])
    assert found["reserved"] is None
    assert not memory._watcher.is_alive()


def test_peak_memory_ends_its_watcher_after_an_error():
    memory = PeakMemory(CPU)
    with pytest.raises(KeyError), memory:
        raise KeyError
    assert not memory._watcher.is_alive()
