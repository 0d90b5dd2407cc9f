"""Supervised learning is V3's step without self-training, bit for bit."""

import pytest
import torch
from ignite.engine import Events
from torch import nn

from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.supervised import SupervisedStep
from ignite_salak.steps.views import Views

CLASSES = 3


def make_model():
    torch.manual_seed(0)
    return TwoHeads()


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.heads = nn.ModuleList(nn.Conv2d(4, CLASSES, 1) for _ in range(2))

    def forward(self, images):
        features = nn.functional.dropout(self.trunk(images), 0.3, self.training)
        return torch.stack([head(features) for head in self.heads])


def make_batches(count, patches=4, unlabeled=True):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randint(0, 256, (2, patches, 3, 32, 32), generator=generator)
        mask = torch.randint(0, CLASSES, (patches, 32, 32), generator=generator).to(torch.uint8)
        mask[:, :4] = 255
        images = images.to(torch.uint8)
        batch = {"labeled": {"image": images[0], "mask": mask}}
        yield batch | ({"unlabeled": {"image": images[1]}} if unlabeled else {})


def parts(model, lr=0.1):
    weights = torch.tensor([1.0, 9.0, 2.0])
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        CombinedLoss({"ce": 0.4, "dice": 0.4, "focal": 0.2}, weights),
    )


def views():
    return Views(RandomGeometry(), (32, 64), seed=5)


def run(step, batches, handlers=()):
    trainer = create_trainer(step, seed=5)
    outputs = []
    for event, handler in handlers:
        trainer.add_event_handler(event, handler)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
    )
    trainer.run(batches, max_epochs=1)
    return outputs


@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_is_the_self_training_step_of_weight_0_bit_for_bit(accumulation):
    student, model = make_model(), make_model()
    self_training = SelfTrainingStep(
        *parts(student),
        CombinedLoss({"ce": 1.0}),
        thresholds=(0.0,) * CLASSES,
        views=views(),
        weight=0.0,
        accumulation=accumulation,
    )
    supervised = SupervisedStep(*parts(model), views=views(), accumulation=accumulation)
    expected = run(self_training, list(make_batches(5)))
    found = run(supervised, list(make_batches(5, unlabeled=False)))
    assert len(found) == 5
    for output, reference in zip(found, expected, strict=True):
        assert set(output) == {"loss", "ce", "dice", "focal"}
        assert {name: reference[name].item() for name in output} == {
            name: value.item() for name, value in output.items()
        }
    for name, value in student.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_the_loss_is_the_weighted_sum_of_its_parts_and_detached():
    [output] = run(SupervisedStep(*parts(make_model()), views=views()), list(make_batches(1)))
    expected = 0.4 * output["ce"] + 0.4 * output["dice"] + 0.2 * output["focal"]
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert not any(value.requires_grad for value in output.values())


def test_events_fire_in_order():
    names = ("VIEWS_READY", "LOSS_COMPUTED", "BACKWARD_COMPLETED", "OPTIMIZER_STEPPED")
    fired = []
    handlers = [
        (TrainingEvents[name], lambda engine, name=name: fired.append(name)) for name in names
    ]
    run(SupervisedStep(*parts(make_model()), views=views()), list(make_batches(1)), handlers)
    assert fired == list(names)


def test_an_all_ignored_mask_is_finite():
    [batch] = make_batches(1)
    batch["labeled"]["mask"].fill_(255)
    [output] = run(SupervisedStep(*parts(make_model()), views=views()), [batch])
    assert output["loss"] == 0


def test_bad_accumulation_is_refused():
    with pytest.raises(ValueError, match="--grad-accumulation 0"):
        SupervisedStep(*parts(make_model()), views=views(), accumulation=0)
    step = SupervisedStep(*parts(make_model()), views=views(), accumulation=3)
    with pytest.raises(ValueError, match="--grad-accumulation 3"):
        run(step, list(make_batches(1)))
