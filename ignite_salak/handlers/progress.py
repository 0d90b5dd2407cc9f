"""The progress bar and the printed evaluation block of the V3 guide."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from ignite.engine import Engine, Events
from tqdm import tqdm

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import Best, EvaluationResult
from ignite_salak.ranks import is_first

__all__ = ["EvaluationReport", "ProgressBar"]

_RULE = "=" * 60


class ProgressBar:
    """``Training V3: 45%|██ | 22500/50000 CE: 0.285 | Dice: 0.182 | ST: 0.412 | ST_px: 34821``.

    Args:
        label: what stands before the bar.
        disable: True hides the bar.
    """

    def __init__(self, label: str = "Training V3", disable: bool = False) -> None:
        self.label = label
        self.disable = disable
        self._bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Counts iterations; the numbers follow ``TrainingEvents.LOGGED``."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(TrainingEvents.LOGGED, self._show)
        engine.add_event_handler(Events.TERMINATE, self.close)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def _open(self, engine: Engine) -> None:
        self._bar = tqdm(
            total=engine.state.epoch_length,
            initial=engine.state.iteration,
            desc=self.label,
            disable=self.disable or not is_first(),
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # few lines in a log file
        )

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _show(self, engine: Engine) -> None:
        if self._bar is not None:
            values = engine.state.metrics
            names = (("CE", "ce"), ("Dice", "dice"), ("ST", "st"))
            parts = [f"{label}: {values[key]:.3f}" for label, key in names if key in values]
            if "st_px" in values:
                parts.append(f"ST_px: {values['st_px']:.0f}")
            self._bar.set_postfix_str(" | ".join(parts), refresh=False)

    def close(self) -> None:
        """Ends the bar's line; after an exception nobody else does."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class EvaluationReport:
    """Prints the scores of every evaluation, above the progress bar.

    Attach it behind ``BestModelSaver``, whose judgement it prints.

    Args:
        names: class names, the background first.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def attach(self, engine: Engine) -> None:
        """Prints a header before and the scores after every evaluation."""
        engine.add_event_handler(TrainingEvents.EVALUATION_STARTED, self._head)
        engine.add_event_handler(TrainingEvents.EVALUATED, self._body)

    def _head(self, engine: Engine) -> None:
        _print(f"{_RULE}\nEvaluating at iteration {engine.state.iteration}...\n{_RULE}")

    def _body(self, engine: Engine) -> None:
        result: EvaluationResult = engine.state.evaluation
        scores = result.validation
        width = max(len(name) for name in self.names)
        lines = [
            f"Training mIoU: {result.training['mIoU']:.4f}",
            f"Validation mIoU: {scores['mIoU']:.4f} "
            f"(with background {scores['mIoU_with_background']:.4f})",
            f"Train/Val Gap: {result.gap:.4f}",
            *(f"  {name:<{width}}  IoU {_shown(scores[f'IoU/{name}'])}" for name in self.names),
            *_judgement(result.best),
            _RULE,
        ]
        _print("\n".join(lines))


def _judgement(best: Best | None) -> list[str]:
    if best is None:
        return []
    if best.previous is None:
        return [f"Best validation mIoU: {best.score:.4f} at iteration {best.iteration}"]
    previous = f"{best.previous:.4f}" if math.isfinite(best.previous) else "none"
    return [
        f"✓ New best validation mIoU: {best.score:.4f} (previous: {previous})",
        f"  Saving best model to: {best.path}",
    ]


def _shown(score: float) -> str:
    return "absent" if math.isnan(score) else f"{score:.4f}"


def _print(text: str) -> None:
    if not is_first():
        return
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()
