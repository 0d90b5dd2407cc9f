"""Ways of learning: one class each, called with (engine, batch)."""

from ignite_salak.steps.adversarial import AdversarialStep
from ignite_salak.steps.diverse_heads import DiverseHeadsStep
from ignite_salak.steps.mean_teacher import MeanTeacherStep
from ignite_salak.steps.self_training import SelfTrainingStep
from ignite_salak.steps.supervised import SupervisedStep

__all__ = [
    "AdversarialStep",
    "DiverseHeadsStep",
    "MeanTeacherStep",
    "SelfTrainingStep",
    "SupervisedStep",
]
