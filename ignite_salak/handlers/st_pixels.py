"""Counts the pixels that self-training learns from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.base import Serializable
from ignite.engine import Engine, Events
from torch import Tensor

__all__ = ["STPixelCounter"]


class STPixelCounter(Serializable):
    """Names the kept pixels of every batch by class and sums them over the run.

    It reads "st_px_per_class", int64 [C], from the step's output and adds "st_px/<name>", 0-d, for
    every class but the background, which is never pseudo-labelled.

    Args:
        names: class names, the background first.
        device: where the step's output is.

    Attributes:
        totals: pixels of every class since the first iteration of the run, int64 [C].

    Example:
        >>> STPixelCounter(classes.names).attach(trainer)
    """

    _state_dict_all_req_keys = ("totals",)

    def __init__(self, names: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.totals: Tensor = torch.zeros(len(self.names), dtype=torch.long, device=device)

    def attach(self, engine: Engine) -> None:
        """Counts after every iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.count)

    def count(self, engine: Engine) -> None:
        """Counts the batch of the current iteration."""
        per_class = engine.state.output["st_px_per_class"]
        self.totals += per_class
        pixels = per_class.float().unbind()
        for name, kept in list(zip(self.names, pixels, strict=True))[1:]:
            engine.state.output[f"st_px/{name}"] = kept

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the totals."""
        return OrderedDict(totals=self.totals)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self.totals.copy_(state_dict["totals"])
