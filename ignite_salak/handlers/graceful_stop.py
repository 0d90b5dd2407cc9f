"""Ctrl-C and SIGTERM end a run between two iterations, not inside one."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events

__all__ = ["GracefulStop"]

_LOGGER = logging.getLogger(__name__)


class GracefulStop:
    """Terminates the engine after the iteration in which SIGINT or SIGTERM arrived.

    A second signal acts as it would without this handler. Attach it behind the handlers that must
    see the last iteration and before ``Checkpoints``.

    Attributes:
        signal_name: the signal that stopped the run, or None.

    Example:
        >>> stop = GracefulStop()
        >>> stop.attach(trainer)
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Listens from the start of the run to its end."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._maybe_stop)
        engine.add_event_handler(Events.TERMINATE, self._unlisten)
        engine.add_event_handler(Events.COMPLETED, self._unlisten)

    def _listen(self) -> None:
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
        if self.signal_name is not None:
            engine.terminate(skip_completed=True)
