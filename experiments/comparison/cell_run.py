"""One cell of a comparison: its processes, from training to cell.json."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from experiments.comparison.budget import budget
from experiments.comparison.cells import (
    RESULT,
    collect,
    last_error,
    read_confusions,
    read_history,
    read_pseudo_labels,
)
from experiments.comparison.setting import Setting
from experiments.comparison.standing import Standing, write_progress
from experiments.comparison.study import Cell
from experiments.training import RecipeOptions

__all__ = ["CellRun", "judge_flags", "run_process"]

_NOTE_EVERY = 10.0  # seconds; what a kill -9 can make the minutes of a cell forget

_LOG = "log.txt"
_UNLABELED = "unlabeled"
_POOLS = {"validation": read_confusions, _UNLABELED: read_pseudo_labels}
"""What is judged, in this order, and what reads the judgement."""


def run_process(script: str, flags: Sequence[str], log: Path) -> subprocess.Popen:
    """Starts a script of ``experiments``; what it says is added to a log.

    Args:
        script: name of the module.
        flags: its command line.
        log: UTF-8 text; its folder must exist.
    """
    environment = {**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", f"experiments.{script}", *flags]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {subprocess.list2cmdline(command)}\n")
        file.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def judge_flags(setting: Setting, options: RecipeOptions, folder: Path, pool: str) -> list[str]:
    """Returns the command line of ``evaluate`` for a trained cell.

    Args:
        setting: where the data are.
        options: the recipe's.
        folder: of the cell.
        pool: "validation", or "unlabeled" for pseudo-labels too.
    """
    data, run = options.data, options.run
    flags = [
        *("--checkpoint", str(folder / "final_model_ema.pth")),
        *("--data-root", str(setting.data_root), "--pool", pool),
        *("--mask-format", data.mask_format, "--batch-size", str(options.schedule.batch_size)),
        *("--device", run.device, "--precision", run.precision),
        *("--num-workers", str(run.num_workers), "--threads", str(setting.threads)),
        *("--output", str(folder / pool)),
    ]
    if pool == _UNLABELED:
        flags += ["--pseudo-labels"]
    if data.class_mapping is not None:
        flags += ["--class-mapping", str(data.class_mapping)]
    if data.input_size is not None:
        flags += ["--input-size", str(data.input_size)]
    return [*flags, "--skip-bad-files"] if data.skip_bad_files else flags


class CellRun:
    """One cell under way: training, the judgement on validation photos, that of pseudo-labels.

    Then it writes cell.json.

    Args:
        setting: the study and its places.
        cell: which one.
        options: its recipe's options, see ``Study.options``.
        standing: how far it is; "open" begins anew.

    Attributes:
        iteration: the last one that was logged.
        result: what cell.json says, once there.
        failure: why there is none, in one line.
    """

    def __init__(
        self, setting: Setting, cell: Cell, options: RecipeOptions, standing: Standing
    ) -> None:
        self.setting = setting
        self.cell = cell
        self.options = options
        self.folder = setting.folder(cell)
        self.iteration = standing.iteration
        self.result: dict[str, Any] | None = None
        self.failure: str | None = None
        self._standing = standing
        self._identity = setting.identity(cell)
        self._phase: Literal["training", "judging"] = "training"
        judge_all = setting.study.judge_pseudo_labels
        self._pools = deque(pool for pool in _POOLS if judge_all or pool != _UNLABELED)
        self._judgement: dict[str, Any] = {"judging_minutes": 0.0}
        self._process: subprocess.Popen | None = None
        self._started = 0.0
        self._seconds = standing.seconds
        self._noted = 0.0

    def start(self) -> None:
        """Starts what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._standing.state == "open":
            for name in (RESULT, _LOG):
                (self.folder / name).unlink(missing_ok=True)
        if self._standing.trained:
            self._judge_or_finish()
            return
        flags = self.setting.flags(self.cell, self.folder)
        latest = self.folder / "latest_checkpoint.pth"
        if self._standing.state == "begun" and latest.is_file():
            flags += ["--restore-from", str(latest)]
        else:
            flags += ["--overwrite"]
        self._launch(self.cell.recipe.script, flags)

    def poll(self) -> bool:
        """Looks after the process; returns whether the cell has ended, well or not."""
        if self._process is None:
            return True
        status = self._process.poll()
        if status is None:
            if time.monotonic() - self._noted >= _NOTE_EVERY:
                self._note(self._process.pid)
            return False
        self._note(None)
        self._process = None
        if self._phase == "training":
            self._trained(status)
        else:
            self._judged(status)
        return self._process is None

    def stop(self, wait: float) -> None:
        """Ends the process, by itself within ``wait`` seconds or told to."""
        if self._process is None:
            return
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
        self._note(None)
        self._process = None

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _launch(self, script: str, flags: Sequence[str]) -> None:
        self._started = time.monotonic()
        self._process = run_process(script, flags, self.folder / _LOG)
        self._note(self._process.pid)

    def _note(self, process: int | None) -> None:
        """Keeps the seconds where a later call finds them, and reads the iteration."""
        self._noted = time.monotonic()
        seconds = self._seconds
        if self._phase == "training":
            seconds += self._noted - self._started
        write_progress(self.folder, self._identity, seconds, process)
        history = read_history(self.folder)
        self.iteration = int(history[-1]["iteration"]) if history else 0

    def _trained(self, status: int) -> None:
        self._seconds += time.monotonic() - self._started
        if status != 0:
            self._fail(status)
        elif not (self.folder / "final_model.pth").is_file():
            self.failure = f"stopped at iteration {self.iteration}; the same command goes on"
        else:
            self._judge_or_finish()

    def _judge_or_finish(self) -> None:
        self._phase = "judging"
        if not self._pools:
            self._finish()
            return
        flags = judge_flags(self.setting, self.options, self.folder, self._pools[0])
        self._launch("evaluate", flags)

    def _judged(self, status: int) -> None:
        self._judgement["judging_minutes"] += (time.monotonic() - self._started) / 60
        pool = self._pools[0]
        if status == 0:
            self._judgement |= _POOLS[pool](self.folder / pool)
        elif status == 2 and pool == _UNLABELED:  # all photos with masks are trained on
            self._judgement["not_judged"] = last_error(self.folder / _LOG)
        else:
            self._fail(status)
            return
        self._pools.popleft()
        self._judge_or_finish()

    def _finish(self) -> None:
        try:
            self.result = collect(
                self.folder,
                recipe=self.cell.recipe.name,
                listing=self.cell.listing,
                identity=self._identity,
                budget=budget(self.options),
                flags=self.setting.flags(self.cell, self.folder),
                seconds=self._seconds,
                judgement=self._judgement,
            )
        except (ValueError, LookupError, TypeError, OSError) as error:
            self.failure = f"the files in {self.folder} say no result: {error!r}"
            return
        self.iteration = self.result["last"]["iteration"]

    def _fail(self, status: int) -> None:
        log = self.folder / _LOG
        self.failure = f"{self._phase} ended with status {status}: {last_error(log)} ({log})"
