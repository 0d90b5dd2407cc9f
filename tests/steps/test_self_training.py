"""V3's step on a network small enough to follow."""

import pytest
import torch
from ignite.engine import Events
from torch import nn

from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views

CLASSES = 3


class ColorNet(nn.Module):
    """Two heads, each a 1 x 1 convolution with dropout; remembers what it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.heads = nn.ModuleList(nn.Conv2d(3, CLASSES, 1) for _ in range(2))
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.detach().clone()))
        features = nn.functional.dropout(self.norm(images), 0.2, self.training)
        return torch.stack([head(features) for head in self.heads])


def make_batch(seed=0, count=2, side=32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (2, count, 3, side, side), generator=generator)
    mask = torch.randint(0, CLASSES, (count, side, side), generator=generator)
    images, mask = images.to(torch.uint8), mask.to(torch.uint8)
    return {"labeled": {"image": images[0], "mask": mask}, "unlabeled": {"image": images[1]}}


def make_step(
    thresholds=(0.0, 0.0, 0.0), sizes=(32, 64), mirror=True, lr=0.1, water=50.0, **options
):
    model = ColorNet()
    return SelfTrainingStep(
        model,
        torch.optim.SGD(model.parameters(), lr=lr),
        CombinedLoss({"ce": 1.0, "dice": 1.0}, torch.tensor([1.0, water, 1.0])),
        CombinedLoss({"ce": 1.0, "dice": 1.0}),
        thresholds=thresholds,
        views=Views(RandomGeometry(mirror, (1.0, 1.0)), sizes, seed=0),
        **{"start_iteration": 1, **options},
    )


def run(step, batches, start=0, handlers=()):
    trainer = create_trainer(step, seed=0)
    outputs = []
    for event, handler, argument in handlers:
        trainer.add_event_handler(event, lambda engine, h, a: h(a), handler, argument)
    trainer.load_state_dict({"iteration": start, "epoch_length": start + 99, "max_epochs": 1})
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=start + len(batches)), lambda: trainer.terminate()
    )
    trainer.run(batches * 2, max_epochs=1, epoch_length=start + 99)
    return outputs


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="--st-loss-weight -1"):
        make_step(weight=-1)


def test_output_names_and_that_all_is_detached():
    [output] = run(make_step(), [make_batch()])
    assert set(output) == {
        *("loss", "ce", "dice", "st", "st_px", "st_share", "st_px_per_class", "disagreement"),
    }
    assert not any(value.requires_grad for value in output.values())
    assert output["st_px_per_class"].sum() == output["st_px"]
    assert 0 < output["st_share"] <= 1


def test_events_fire_in_order():
    fired = []
    names = (
        *("PSEUDO_LABELED", "VIEWS_READY", "LOSS_COMPUTED"),
        *("BACKWARD_COMPLETED", "OPTIMIZER_STEPPED"),
    )
    handlers = [(TrainingEvents[name], fired.append, name) for name in names]
    run(make_step(), [make_batch()], handlers=handlers)
    assert fired == list(names)


def test_votes_come_from_the_plain_view_and_training_sees_another():
    step = make_step()
    batch = make_batch(count=8)
    run(step, [batch])
    (voting, plain), (training, views) = step.model.seen
    assert not voting
    assert training
    assert torch.equal(plain, batch["unlabeled"]["image"].float() / 255)
    student = views[1::2]
    assert len(views) == 16
    assert not torch.equal(student[..., :32, :32], plain)


def test_pseudo_labels_move_with_their_image():
    step = make_step(sizes=(32, 32))
    seen = {}
    losses = step.self_training_loss.forward

    def spy(logits, target):
        seen["target"] = target
        return losses(logits, target)

    step.self_training_loss.forward = spy
    batch = make_batch(count=16)
    run(step, [batch])
    views = step.model.seen[1][1][1::2]
    # Flips are exact, so voting on the warped image must give the warped labels.
    fresh = make_step(sizes=(32, 32))
    expected, _ = fresh.pseudo_label(views)
    assert (expected.labels == seen["target"]).float().mean() > 0.999
    plain, _ = fresh.pseudo_label(batch["unlabeled"]["image"].float() / 255)
    assert (plain.labels != seen["target"]).any()


def test_self_training_starts_when_told_and_weight_0_is_supervised():
    batch = make_batch()
    outputs = run(make_step(start_iteration=3), [batch] * 4)
    assert [bool(output["st_px"] > 0) for output in outputs] == [False, False, True, True]
    supervised = {"labeled": batch["labeled"]}
    for step in (make_step(weight=0.0), make_step(start_iteration=100)):
        off = run(step, [batch] * 2)
        alone = run(make_step(), [supervised] * 2)
        assert [o["loss"].item() for o in off] == [o["loss"].item() for o in alone]


def test_loss_is_supervised_plus_weight_times_self_training():
    [output] = run(make_step(weight=2.5), [make_batch()])
    expected = output["ce"] + output["dice"] + 2.5 * output["st"]
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_no_pseudo_label_passes_a_threshold_above_1_and_nothing_breaks():
    [output] = run(make_step(thresholds=(1.1,) * CLASSES), [make_batch()])
    assert output["st_px"] == 0
    assert output["st"] == 0
    assert torch.isfinite(output["loss"])


def test_an_all_ignored_mask_is_finite():
    batch = make_batch()
    batch["labeled"]["mask"].fill_(255)
    batch["unlabeled"]["image"].zero_()
    [output] = run(make_step(), [batch])
    assert output["loss"] == 0
    assert output["st_px"] == 0


def test_an_iteration_does_not_depend_on_those_before_it():
    # Same weights, same batch, same iteration number: the same loss, whatever ran before.
    batch = make_batch()
    frozen = {"lr": 0.0}
    whole = make_step(**frozen)
    whole.model.norm.momentum = 0.0
    outputs = run(whole, [make_batch(1), make_batch(2), batch])
    late = make_step(**frozen)
    late.model.norm.momentum = 0.0
    [output] = run(late, [batch], start=2)
    assert output["loss"].item() == outputs[2]["loss"].item()


def test_the_labelled_view_does_not_depend_on_self_training():
    batch = make_batch()
    on, off = make_step(), make_step(weight=0.0)
    run(on, [batch])
    run(off, [batch])
    assert torch.equal(on.model.seen[1][1][::2], off.model.seen[0][1])


def test_it_learns():
    # The class is the brightest channel: a 1 x 1 convolution can tell.
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (2, 4, 3, 16, 16), generator=generator)
    images = images.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    batch = {
        "labeled": {"image": images[0], "mask": images[0].argmax(1).to(torch.uint8)},
        "unlabeled": {"image": images[1]},
    }
    step = make_step(thresholds=(0.5,) * CLASSES, start_iteration=20, lr=1.0, water=1.0)
    outputs = run(step, [batch] * 90)
    assert outputs[-1]["ce"] < 0.5 * outputs[0]["ce"]
    pseudo, _ = step.pseudo_label(images[1].float() / 255)
    kept = pseudo.labels != 255
    assert (pseudo.labels == images[1].argmax(1))[kept].float().mean() > 0.8


def test_view_sizes_are_shared_by_both_pools_and_change():
    step = make_step(sizes=(32, 96))
    run(step, [make_batch()] * 8)
    sides = [images.shape[-1] for training, images in step.model.seen if training]
    assert len(set(sides)) > 1
    assert all(side % 16 == 0 and 32 <= side <= 96 for side in sides)
