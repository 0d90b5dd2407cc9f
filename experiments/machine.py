"""What a script runs on: threads, workers and device, and what there is to say of them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any, Protocol

import torch

from experiments.launch import ranks_per_machine
from ignite_salak.ranks import rank_count

__all__ = ["Machine", "set_up", "surroundings"]

_PACKAGES = ("torch", "torchvision", "pytorch-ignite", "kornia", "numpy", "pillow", "ignite-salak")


class Machine(Protocol):
    """Options that say what a script runs on."""

    device: str
    num_workers: int
    threads: int


def set_up(options: Machine, device_name: str | None = None) -> torch.device:
    """Sets torch's threads and chooses the device.

    Args:
        options: they are changed as said below.
        device_name: the device, where it is not that of the options.

    The options then hold the threads in use, and no more workers than there are cores, on which
    nothing but the speed depends.

    Raises:
        ValueError: the device does not exist, or a number is negative.
    """
    if options.threads < 0 or options.num_workers < 0:
        raise ValueError(
            f"--threads {options.threads} and --num-workers {options.num_workers}: not below 0"
        )
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    options.threads = torch.get_num_threads()  # what config.json has to say
    name = options.device if device_name is None else device_name
    cores = max(1, (os.cpu_count() or 1) // ranks_per_machine())
    options.num_workers = min(options.num_workers, cores)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {options.device} cannot be used: {reason}") from error
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    return device


def surroundings(device: torch.device) -> dict[str, Any]:
    """Returns the command, the versions and the hardware, as plain values.

    The processor and the vector instructions that torch uses on it are named because they decide
    how sums are rounded, and with it where a seed ends.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processes": rank_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
