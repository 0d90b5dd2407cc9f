"""Gradient clipping."""

import pytest
import torch
from ignite.engine import Engine

from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import GradientClipper


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_a_bad_norm_is_refused(norm):
    with pytest.raises(ValueError, match="--gradient-clip"):
        GradientClipper(torch.nn.Linear(1, 1), norm)


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1.0), (100.0, 5.0)])
def test_clips_between_backward_and_step_and_reports_the_norm_before(limit, expected):
    model = torch.nn.Linear(2, 1, bias=False)
    seen = []

    def step(engine, batch):
        model.weight.grad = torch.tensor([[3.0, 4.0]])
        engine.fire_event(TrainingEvents.BACKWARD_COMPLETED)
        seen.append(model.weight.grad.norm().item())
        return {}

    engine = Engine(step)
    engine.register_events(*TrainingEvents)
    GradientClipper(model, limit).attach(engine)
    engine.run([0])
    assert seen == [pytest.approx(expected, rel=1e-4)]
    assert engine.state.output["grad_norm"].item() == pytest.approx(5.0)
