"""Runs the cells of a comparison, some side by side, and tells of each."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from experiments.comparison.cell_run import CellRun
from experiments.comparison.cells import number

__all__ = ["run_cells"]

_LOOK_EVERY = 0.5  # seconds
_PATIENCE = 10.0  # seconds for processes that the terminal has told to stop, before we tell them


def run_cells(runs: Sequence[CellRun], jobs: int) -> None:
    """Runs cells, ``jobs`` at a time, and tells of each; a cell that fails leaves the others alone.

    Args:
        runs: in this order.
        jobs: how many side by side.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the processes have saved and ended.
    """
    waiting, active = deque(runs), list[CellRun]()
    total = sum(run.options.schedule.num_steps - run.iteration for run in runs)
    begun = sum(run.iteration for run in runs)
    bar = tqdm(total=total, desc="Cells", unit="it", disable=None, dynamic_ncols=True)
    with _sigterm_interrupts(), bar:
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active.append(waiting.popleft())
                    place = f"[{len(runs) - len(waiting)}/{len(runs)}]"
                    at = f" at iteration {active[-1].iteration}" if active[-1].iteration else ""
                    _say(f"{place} {active[-1].cell.name}: starts{at}")
                    active[-1].start()
                for run in [run for run in active if run.poll()]:
                    active.remove(run)
                    _say(f"{run.cell.name}: {_ending(run)}")
                bar.update(sum(run.iteration for run in runs) - begun - bar.n)
                if active:
                    time.sleep(_LOOK_EVERY)
        except BaseException:
            _stop(active)
            raise


def _stop(active: Sequence[CellRun]) -> None:
    _say(f"stopping {len(active)} runs; the same command goes on later (again: at once)")
    deadline = time.monotonic() + _PATIENCE
    try:
        for run in active:
            run.stop(max(0.0, deadline - time.monotonic()))
    except KeyboardInterrupt:
        for run in active:
            run.kill()


def _ending(run: CellRun) -> str:
    if run.result is None:
        return f"FAILED: {run.failure}"
    last, best = (number(run.result, which, "mIoU") for which in ("last", "best"))
    text = f"mIoU {last:.4f}, best {best:.4f}, {run.result['minutes']:.1f} min"
    if "not_judged" in run.result:
        text += f" (pseudo-labels not judged: {run.result['not_judged']})"
    return text


def _say(text: str) -> None:
    tqdm.write(text)
    sys.stdout.flush()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Lets SIGTERM do what Ctrl-C does; only the main thread may receive signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: Callable | int | None = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
