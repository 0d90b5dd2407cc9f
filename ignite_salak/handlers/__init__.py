"""Handlers that attach to a trainer, one concept each."""

from ignite_salak.handlers.best_model import BestModelSaver
from ignite_salak.handlers.checkpoints import Checkpoints, RunDescription, restore
from ignite_salak.handlers.ema import EMAUpdater, ema_decay
from ignite_salak.handlers.evaluation import (
    Best,
    Evaluation,
    EvaluationResult,
    SourceChange,
    validation_score,
)
from ignite_salak.handlers.graceful_stop import GracefulStop
from ignite_salak.handlers.gradient_clipper import GradientClipper
from ignite_salak.handlers.health import Health
from ignite_salak.handlers.history import History
from ignite_salak.handlers.lr_schedule import WarmupCosine, warmup_cosine_factor
from ignite_salak.handlers.monitor_base import Monitor
from ignite_salak.handlers.monitors import ClearMLMonitor, TensorBoardMonitor, WandBMonitor
from ignite_salak.handlers.panels import Gallery, Panels
from ignite_salak.handlers.phase_timer import PhaseTimer
from ignite_salak.handlers.progress import EvaluationReport, ProgressBar
from ignite_salak.handlers.run_summary import RunSummary
from ignite_salak.handlers.source_watch import SourceWatch
from ignite_salak.handlers.st_pixels import STPixelCounter
from ignite_salak.handlers.training_log import TrainingLog

__all__ = [
    "Best",
    "BestModelSaver",
    "Checkpoints",
    "ClearMLMonitor",
    "EMAUpdater",
    "Evaluation",
    "EvaluationReport",
    "EvaluationResult",
    "Gallery",
    "GracefulStop",
    "GradientClipper",
    "Health",
    "History",
    "Monitor",
    "Panels",
    "PhaseTimer",
    "ProgressBar",
    "RunDescription",
    "RunSummary",
    "STPixelCounter",
    "SourceChange",
    "SourceWatch",
    "TensorBoardMonitor",
    "TrainingLog",
    "WandBMonitor",
    "WarmupCosine",
    "ema_decay",
    "restore",
    "validation_score",
    "warmup_cosine_factor",
]
