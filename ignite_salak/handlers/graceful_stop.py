"""Ctrl-C and SIGTERM end a run between two iterations, not inside one."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from ignite_salak.ranks import rank_count

__all__ = ["GracefulStop"]

_LOGGER = logging.getLogger(__name__)
_ASK_EVERY = 10  # iterations


class GracefulStop:
    """Terminates the engine after the iteration in which SIGINT or SIGTERM arrived.

    A second signal acts as it would without this handler. Attach it behind the handlers that must
    see the last iteration and before ``Checkpoints``. Several ranks stop together, within ten
    iterations of the first signal that one of them got.

    Attributes:
        signal_name: the signal that stopped the run, or None.

    Example:
        >>> stop = GracefulStop()
        >>> stop.attach(trainer)
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._group: Any = None

    def attach(self, engine: Engine) -> None:
        """Listens from the start of the run to its end."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._maybe_stop)
        engine.add_event_handler(Events.TERMINATE, self._unlisten)
        engine.add_event_handler(Events.COMPLETED, self._unlisten)

    def _listen(self) -> None:
        if rank_count() > 1 and self._group is None:
            # Of its own, on the CPU: asking the others must not wait for the GPU.
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may receive signals
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)

    def _unlisten(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._unlisten()
        _LOGGER.warning("%s: stopping after this iteration (again: at once)", self.signal_name)

    def _maybe_stop(self, engine: Engine) -> None:
        if rank_count() > 1:
            if engine.state.iteration % _ASK_EVERY:
                return
            self._ask_the_others()
        if self.signal_name is not None:
            engine.terminate(skip_completed=True)

    def _ask_the_others(self) -> None:
        number = getattr(signal, self.signal_name) if self.signal_name else 0
        received = torch.tensor(int(number))
        dist.all_reduce(received, dist.ReduceOp.MAX, group=self._group)
        if received > 0:
            self.signal_name = signal.Signals(int(received)).name
