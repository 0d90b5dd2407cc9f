"""The V3 guide's success levels, as data, and what a run reaches of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ignite_salak.report.run import Run

__all__ = ["LEVELS", "Criterion", "Level", "Outcome", "Verdict", "judge"]


@dataclass(frozen=True)
class Criterion:
    """One line of the guide.

    Attributes:
        text: what it demands.
        measure: "mIoU", "ST_px", "gap", "early stopping" or "DiverseNet".
        above: bound that the measured value must exceed.
        below: bound that it must stay under.
    """

    text: str
    measure: str
    above: float = -math.inf
    below: float = math.inf


@dataclass(frozen=True)
class Level:
    """Criteria that belong together.

    Attributes:
        name: what the guide calls it.
        criteria: all must be met.
        until: iteration up to which evaluations count; None for all.
    """

    name: str
    criteria: tuple[Criterion, ...]
    until: int | None = None


def _measured(score: float, st_px: int, gap: float) -> tuple[Criterion, ...]:
    return (
        Criterion(f"validation mIoU above {score:.2f}", "mIoU", above=score),
        Criterion(f"ST_px above {st_px:,}", "ST_px", above=st_px),
        Criterion(f"train/val gap below {gap:.2f}", "gap", below=gap),
    )


LEVELS: tuple[Level, ...] = (
    Level("Minimum", _measured(0.60, 10_000, 0.12), until=20_000),
    Level(
        "Good",
        (*_measured(0.70, 30_000, 0.08), Criterion("no early stopping", "early stopping", below=1)),
    ),
    Level(
        "Excellent",
        (*_measured(0.75, 40_000, 0.05), Criterion("matches DiverseNet", "DiverseNet", above=0)),
    ),
)
"""Success criteria of the V3 quick reference."""


@dataclass(frozen=True)
class Outcome:
    """What was measured for a criterion; ``met`` is None where it could not be judged."""

    criterion: Criterion
    met: bool | None
    shown: str


@dataclass(frozen=True)
class Verdict:
    """A level and its outcomes; ``iteration`` is that of the evaluation that was judged."""

    level: Level
    iteration: int | None
    outcomes: tuple[Outcome, ...]

    @property
    def reached(self) -> bool | None:
        """True if all is met, False if anything is not, None if the rest was not measured."""
        results = [outcome.met for outcome in self.outcomes]
        if False in results:
            return False
        return None if None in results else True


def judge(run: Run) -> tuple[Verdict, ...]:
    """Judges a run by its best evaluation: that of the model it delivers.

    A level with ``until`` takes the best evaluation up to there. ST_px is the value logged last at
    or before that evaluation, and 0 without self-training.
    """
    verdicts = []
    for level in LEVELS:
        iteration = run.best
        if level.until is not None and iteration is not None and iteration > level.until:
            iteration = run.series("validation/mIoU").best(level.until)
        values = _measure(run, iteration)
        outcomes = tuple(_compare(criterion, values) for criterion in level.criteria)
        verdicts.append(Verdict(level, iteration, outcomes))
    return tuple(verdicts)


_Measures = Mapping[str, tuple[float | None, str]]


def _measure(run: Run, iteration: int | None) -> _Measures:
    """Returns value and its wording per measure; None is not measured."""
    score = run.series("validation/mIoU").at(iteration)
    gap = run.series("gap").at(iteration)
    st_px = run.series("st_px").until(iteration)
    if not run.self_training:
        st_px = 0.0
    none = "no evaluation yet" if iteration is None else "not measured"
    return {
        "mIoU": (score, none if score is None else f"{score:.3f}"),
        "ST_px": (st_px, _pixels(run, st_px, none)),
        "gap": (gap, none if gap is None else f"{gap:.3f}"),
        "early stopping": _early_stopping(run),
        "DiverseNet": (None, "not measured: needs a run of DiverseNet on the same data"),
    }


def _pixels(run: Run, value: float | None, none: str) -> str:
    if not run.self_training:
        return "0 (self-training is off)"
    return none if value is None or not math.isfinite(value) else f"{value:,.0f}"


def _early_stopping(run: Run) -> tuple[float | None, str]:
    if run.state == "stopped early":
        return 1.0, f"stopped early at iteration {run.iteration:,}"
    if run.state == "completed":
        return 0.0, "ran to its end"
    if run.option("run", "early_stop_patience") is None:
        return 0.0, "early stopping is off"
    return None, "not known: the run has not ended"


def _compare(criterion: Criterion, values: _Measures) -> Outcome:
    value, shown = values[criterion.measure]
    if value is None or math.isnan(value):
        return Outcome(criterion, None, shown)
    return Outcome(criterion, criterion.above < value < criterion.below, shown)
