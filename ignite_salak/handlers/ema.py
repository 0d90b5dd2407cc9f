"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from ignite.base import Serializable
from ignite.engine import Engine, Events
from torch import nn

from ignite_salak.events import TrainingEvents

__all__ = ["EMAUpdater", "ema_decay"]


def ema_decay(update: int, decay: float) -> float:
    """Decay of one update: min(1 - 1 / (update + 1), decay).

    The ramp makes the average a plain mean at first, so that initial weights do not linger
    (Tarvainen and Valpola 2017, arXiv:1703.01780, as they implemented it).

    Args:
        update: updates made before this one, from 0; the first one copies the model.
        decay: decay after the ramp.
    """
    return min(1.0 - 1.0 / (update + 1), decay)


class EMAUpdater(Serializable):
    """Keeps an averaged copy of a model: parameters and floating-point buffers.

    The copy shares no memory with the model; integer buffers are copied. Both keep their tensors
    from the first update on: load weights into them as ``load_state_dict`` does, but move neither.

    Args:
        model: the model that is trained.
        decay: decay after the ramp.

    Attributes:
        model: the averaged copy, in evaluation mode, without gradients.
        updates: updates made so far.

    Raises:
        ValueError: ``decay`` is not in [0, 1).

    Example:
        >>> ema = EMAUpdater(model, decay=0.9995)
        >>> ema.attach(trainer)
        >>> evaluator = create_evaluator(ema.model, metrics)
    """

    _state_dict_all_req_keys = ("model", "updates")

    def __init__(self, model: nn.Module, decay: float = 0.9995) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"--ema-decay {decay} is not in [0, 1)")
        self.source = model
        self.decay = decay
        self.updates = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._tensors: _Tensors | None = None

    def attach(self, engine: Engine) -> None:
        """Averages after every optimizer step and reports the decay after the iteration."""
        engine.add_event_handler(TrainingEvents.OPTIMIZER_STEPPED, self.update)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._report)

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the model's present weights."""
        if self._tensors is None:
            self._tensors = _Tensors(self.model, self.source)
        self._tensors.update(1.0 - ema_decay(self.updates, self.decay))
        self.updates += 1

    def _report(self, engine: Engine) -> None:
        engine.state.output["ema_decay"] = ema_decay(max(0, self.updates - 1), self.decay)

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the averaged weights and the number of updates."""
        return OrderedDict(model=self.model.state_dict(), updates=self.updates)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self.model.load_state_dict(state_dict["model"])
        self.updates = int(state_dict["updates"])


class _Tensors:
    """The tensors of two equal models; to walk through the models costs more than a step's kernels.

    Args:
        averaged: the model that is moved.
        current: the model that it follows.
    """

    def __init__(self, averaged: nn.Module, current: nn.Module) -> None:
        followed = current.state_dict()
        pairs = [(value, followed[name]) for name, value in averaged.state_dict().items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        integer = [pair for pair in pairs if not pair[0].is_floating_point()]
        self.averaged, self.averaging = [a for a, _ in floating], [c for _, c in floating]
        self.copies, self.originals = [a for a, _ in integer], [c for _, c in integer]

    def update(self, weight: float) -> None:
        """Moves the floating-point tensors by a share of the way, copies the others."""
        torch._foreach_lerp_(self.averaged, self.averaging, weight)
        if self.copies:
            torch._foreach_copy_(self.copies, self.originals)
