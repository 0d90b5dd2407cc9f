"""The machine as options and config.json name it."""

import os
from pathlib import Path

import pytest
import torch

from experiments.machine import set_up, surroundings
from experiments.options import RunOptions


def test_options_then_say_what_is_used(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    options = RunOptions(num_workers=8)
    set_up(options)
    assert options.num_workers == 2
    assert options.threads == torch.get_num_threads() > 0


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match=f"--device {name} cannot be used"):
        set_up(RunOptions(device=name))


@pytest.mark.parametrize("options", [RunOptions(threads=-1), RunOptions(num_workers=-1)])
def test_a_negative_number_is_refused(options):
    with pytest.raises(ValueError, match="not below 0"):
        set_up(options)


def test_surroundings_name_what_moves_a_seed():
    found = surroundings(torch.device("cpu"))
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert isinstance(found["processor"], str)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and "model name" in (text := cpuinfo.read_text(encoding="utf-8")):
        assert found["processor"] and found["processor"] in text
    assert found["gpu"] is None
    assert found["packages"]["torch"] == torch.__version__.split("+")[0]
