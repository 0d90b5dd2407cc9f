"""Ways of learning: one class each, called with (engine, batch)."""

from ignite_salak.steps.self_training import SelfTrainingStep

__all__ = ["SelfTrainingStep"]
