"""Compiling a network for the few sizes of its images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["compile_network"]

_MOST_SHAPES = 64  # torch gives up after 8; multi-scale views from 256 to 384 take 9, twice


def compile_network(model: nn.Module, backend: str | Callable = "inductor") -> None:
    """Lets ``torch.compile`` compile the forward pass, and the backward pass that belongs to it.

    Every shape of a batch is compiled for itself, when it is first seen, which may take minutes;
    shapes that vary freely defeat the CPU's code generator (torch 2.15). Names of parameters,
    ``state_dict`` and copies of the model stay as they are.

    Args:
        model: it is changed.
        backend: that of ``torch.compile``.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _MOST_SHAPES)
    model.compile(dynamic=False, backend=backend)
