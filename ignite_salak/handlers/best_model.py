"""Keeps the model with the best validation mIoU."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.base import Serializable
from ignite.engine import Engine

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers.evaluation import Best, EvaluationResult
from ignite_salak.ranks import is_first

__all__ = ["BestModelSaver"]


class BestModelSaver(Serializable):
    """Saves a model whenever the validation mIoU (without background) beats all before.

    The best score is part of the state, so a resumed run does not overwrite a better model. A
    score that is NaN is never the best. Of several ranks, only the first saves.

    Args:
        path: the file, such as ``best_model_ema.pth``.
        save: called with (path, facts) to write the model; facts are "iteration" and "scores".

    Attributes:
        score: best validation mIoU so far; minus infinity before the first evaluation.
        iteration: when it was reached.

    Example:
        >>> BestModelSaver(folder / "best_model_ema.pth", save_ema).attach(trainer)
    """

    _state_dict_all_req_keys = ("score", "iteration")

    def __init__(self, path: Path, save: Callable[[Path, dict[str, Any]], None]) -> None:
        self.path = path
        self.save = save
        self.score = -math.inf
        self.iteration = 0

    def attach(self, engine: Engine) -> None:
        """Judges after every evaluation."""
        engine.add_event_handler(TrainingEvents.EVALUATED, self.judge)

    def judge(self, engine: Engine) -> None:
        """Saves the model if the last evaluation is the best, and sets ``result.best``."""
        result: EvaluationResult = engine.state.evaluation
        score = result.validation["mIoU"]
        if math.isnan(score) or score <= self.score:
            result.best = Best(self.score, self.iteration, self.path, None)
            return
        if is_first():
            self.save(self.path, {"iteration": result.iteration, "scores": result.validation})
        result.best = Best(score, result.iteration, self.path, self.score)
        self.score, self.iteration = score, result.iteration

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns the best score and its iteration."""
        return OrderedDict(score=self.score, iteration=self.iteration)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self.score = float(state_dict["score"])
        self.iteration = int(state_dict["iteration"])
