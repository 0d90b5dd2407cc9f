"""Events of a training run beside ignite's own."""

from __future__ import annotations

from ignite.engine import EventEnum

__all__ = ["TrainingEvents"]


class TrainingEvents(EventEnum):
    """Events that a trainer of ``engines.create_trainer`` fires.

    PSEUDO_LABELED: ``engine.state.pseudo_labels`` holds those of this batch.
    VIEWS_READY: the images and labels that the student trains on are made.
    LOSS_COMPUTED: the forward pass is done; once for every part of an accumulated batch.
    BACKWARD_COMPLETED: the gradients are complete; clipping belongs here.
    OPTIMIZER_STEPPED: the weights have moved; averaging belongs here.
    LOGGED: ``engine.state.metrics`` holds the scalars of the iterations since the last time.
    EVALUATION_STARTED: an evaluation begins.
    EVALUATED: ``engine.state.evaluation`` holds the scores.
    """

    PSEUDO_LABELED = "pseudo_labeled"
    VIEWS_READY = "views_ready"
    LOSS_COMPUTED = "loss_computed"
    BACKWARD_COMPLETED = "backward_completed"
    OPTIMIZER_STEPPED = "optimizer_stepped"
    LOGGED = "logged"
    EVALUATION_STARTED = "evaluation_started"
    EVALUATED = "evaluated"
