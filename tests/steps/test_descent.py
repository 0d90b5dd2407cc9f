"""Backward passes in parts, and one step."""

import pytest
import torch
from torch import nn

from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.steps.descent import descend, divide


@pytest.mark.parametrize(("patches", "count"), [(8, 3), (4, 4), (2, 4)])
def test_parts_that_do_not_fit_are_refused(patches, count):
    with pytest.raises(ValueError, match=f"--grad-accumulation {count} does not cut {patches}"):
        divide([torch.zeros(patches, 3)], count)


def test_one_part_may_be_a_single_patch():
    [[images]] = divide([torch.ones(1, 2)], 1)
    assert images.shape == (1, 2)


def test_parts_keep_the_order_and_the_pools_together():
    images, labels = torch.arange(8.0), torch.arange(8)
    parts = divide([images, labels], 2)
    assert [[pool.tolist() for pool in part] for part in parts] == [
        [[0, 1, 2, 3], [0, 1, 2, 3]],
        [[4, 5, 6, 7], [4, 5, 6, 7]],
    ]


def gradient(count):
    """Of the mean square of a linear function, whose gradient is that of the parts' mean."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    fired, seen = [], {}

    def losses(part):
        loss = (model(part) ** 2).mean()
        return {"loss": loss, "double": 2 * loss}

    def step(engine, batch):
        return descend(engine, model, optimizer, divide([inputs], count), losses)

    trainer = create_trainer(step)
    for event in ("LOSS_COMPUTED", "BACKWARD_COMPLETED", "OPTIMIZER_STEPPED"):
        trainer.add_event_handler(TrainingEvents[event], lambda name: fired.append(name), event)
    trainer.add_event_handler(
        TrainingEvents.BACKWARD_COMPLETED,
        lambda engine: seen.update(gradient=model.weight.grad.clone()),
    )
    before = model.weight.detach().clone()
    output = trainer.run([0], max_epochs=1).output
    assert torch.allclose(model.weight, before - seen["gradient"])
    return fired, seen["gradient"], output


@pytest.mark.parametrize("count", [2, 4])
def test_gradients_of_parts_add_up_to_that_of_the_batch(count):
    fired, whole, expected = gradient(1)
    assert fired == ["LOSS_COMPUTED", "BACKWARD_COMPLETED", "OPTIMIZER_STEPPED"]
    fired, summed, output = gradient(count)
    assert fired == ["LOSS_COMPUTED"] * count + ["BACKWARD_COMPLETED", "OPTIMIZER_STEPPED"]
    assert torch.allclose(summed, whole, atol=1e-6)
    for name, value in expected.items():
        assert output[name].item() == pytest.approx(value.item(), rel=1e-5)
        assert not output[name].requires_grad
