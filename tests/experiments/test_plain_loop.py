"""The plain loop computes what the library computes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from ignite.engine import Events

from experiments.data import load_data
from experiments.options import DataOptions, RunOptions, ScheduleOptions
from experiments.plain_loop import PlainLoop
from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_evaluator, create_trainer
from ignite_salak.handlers import EMAUpdater, GradientClipper, WarmupCosine
from ignite_salak.losses import CombinedLoss
from ignite_salak.metrics import ClassIoU, scores_from_confusion
from ignite_salak.models.model_file import ModelSpec
from ignite_salak.steps import SelfTrainingStep
from ignite_salak.steps.views import Views

STEPS = 5
WEIGHTS = {"ce": 0.4, "dice": 0.4, "focal": 0.2}
SCHEDULE = ScheduleOptions(batch_size=4, num_steps=20, warmup_iters=2, ema_decay=0.7)


@pytest.fixture(scope="module")
def data(tmp_path_factory, shared_plantation):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IGNITE_SALAK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield load_data(
            DataOptions(data_root=shared_plantation.root),
            RunOptions(num_workers=0),
            batch_size=4,
            device=torch.device("cpu"),
        )


@pytest.fixture
def model(data):
    torch.manual_seed(3)
    model = ModelSpec(data.classes.num_classes, "resnet18", 2, 16, 16).build()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # it draws in the order of the memory, which is not that of the library
    return model


@pytest.fixture
def views():
    return Views(RandomGeometry(), (32, 64), seed=0)


def losses_of(data):
    return CombinedLoss(WEIGHTS, data.class_weights), CombinedLoss(WEIGHTS)


def plain(data, model, views, **changes):
    thresholds = [0.1] * data.classes.num_classes
    settings = {"thresholds": thresholds, "views": views, "schedule": SCHEDULE} | changes
    return PlainLoop(model, *losses_of(data), **settings)


def train_ours(data, model, views, steps):
    """Trains without self-training; returns the losses of every step and the averaged model."""
    model = model.to(memory_format=torch.channels_last)
    rates = SCHEDULE.learning_rate, SCHEDULE.decoder_lr_factor
    optimizer = SCHEDULE.build_optimizer(model.parameter_groups(*rates))
    thresholds = [0.1] * data.classes.num_classes
    step = SelfTrainingStep(
        model, optimizer, *losses_of(data), thresholds=thresholds, views=views, weight=0.0
    )
    trainer = create_trainer(step, seed=views.seed)
    WarmupCosine(optimizer, warmup=2, total=20).attach(trainer)
    GradientClipper(model, SCHEDULE.gradient_clip).attach(trainer)
    ema = EMAUpdater(model, SCHEDULE.ema_decay)
    ema.attach(trainer)
    outputs = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(dict(engine.state.output))
    )
    trainer.run(data.stream, max_epochs=1, epoch_length=steps)
    return outputs, ema.model


def test_without_self_training_the_losses_are_those_of_the_library(data, model, views):
    ours, _ = train_ours(data, copy.deepcopy(model), views, STEPS)
    theirs = list(plain(data, model, views, weight=0.0).train(data.stream, STEPS))
    assert len(theirs) == len(ours) == STEPS
    for mine, other in zip(ours, theirs, strict=True):
        for name in ("loss", "ce", "dice", "focal", "st"):
            assert other[name] == pytest.approx(float(mine[name]), rel=1e-4), name
    assert len({losses["loss"] for losses in theirs}) == STEPS


def test_averaged_weights_and_their_scores_are_those_of_the_library(data, model, views):
    _, averaged = train_ours(data, copy.deepcopy(model), views, STEPS)
    loop = plain(data, model, views, weight=0.0)
    list(loop.train(data.stream, STEPS))
    expected = averaged.state_dict()
    for name, value in loop.average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)

    loop.average.load_state_dict(expected)  # so that no pixel lies between two classes
    scores = ClassIoU(data.classes.names)
    create_evaluator(averaged, {"scores": scores}).run(data.validation)
    patches = next(iter(data.validation._reader._pools.values()))
    confusion = loop.evaluate(patches, 5)
    assert confusion.sum() == len(patches) * 32 * 32
    np.testing.assert_allclose(confusion, scores.total.numpy(), atol=2)
    found = scores_from_confusion(torch.from_numpy(confusion), data.classes.names)
    assert found["mIoU"] == pytest.approx(scores.result["mIoU"], abs=1e-4)


def test_views_of_single_patches_are_those_of_the_batch(data, model, views):
    batch = next(iter(data.stream))["labeled"]
    images, masks = batch["image"].float() / 255, batch["mask"].long()
    warp = views.draw(images, 3, "labeled")
    found = plain(data, model, views).augment(images, masks, 3, "labeled")
    torch.testing.assert_close(found[0], warp.warp_image(images))
    assert torch.equal(found[1], warp.warp_labels(masks))


def test_with_self_training_it_learns_from_unlabelled_patches_too(data, model, views):
    loop = plain(data, model, views)
    [first, second] = loop.train(data.stream, 2)
    for losses in (first, second):
        parts = sum(weight * losses[name] for name, weight in WEIGHTS.items())
        assert losses["st"] > 0
        assert losses["loss"] == pytest.approx(parts + losses["st"], rel=1e-5)


def test_its_pseudo_labels_are_those_of_the_step(data, model, views):
    images = next(iter(data.stream))["unlabeled"]["image"].float() / 255
    thresholds = [0.1] * data.classes.num_classes
    optimizer = torch.optim.SGD(model.parameters())
    step = SelfTrainingStep(model, optimizer, *losses_of(data), thresholds=thresholds, views=views)
    expected, _ = step.pseudo_label(images)
    loop = plain(data, model, views)
    assert torch.equal(loop.pseudo_label(images), expected.labels)
    assert loop.model.training


def test_the_learning_rate_follows_the_schedule(data, model, views):
    loop = plain(data, model, views, schedule=replace(SCHEDULE, warmup_iters=4))
    for iteration, expected in ((1, 2.5e-4 / 4), (4, 2.5e-4), (13, 2.5e-4 / 2)):
        loop.set_rates(iteration)
        rates = [group["lr"] for group in loop.optimizer.param_groups]
        assert rates == pytest.approx([expected, 10 * expected])


def test_what_it_saves_continues_it(data, model, views, tmp_path):
    loop = plain(data, model, views)
    list(loop.train(data.stream, 1))
    loop.save(tmp_path / "plain.pth")
    stored = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert set(stored) == {"model", "average", "optimizer"}
    assert len(stored["optimizer"]["state"]) == len(list(model.parameters()))


@pytest.mark.parametrize(("name", "kind"), [("sgd", "SGD"), ("adamw", "AdamW")])
def test_the_optimizer_is_the_schedules(data, model, views, name, kind):
    loop = plain(data, model, views, schedule=replace(SCHEDULE, optimizer=name))
    assert type(loop.optimizer).__name__ == kind
    assert {group["weight_decay"] for group in loop.optimizer.param_groups} == {5e-4}
