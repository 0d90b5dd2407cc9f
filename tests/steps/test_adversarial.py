"""S4GAN's step on networks small enough to follow."""

import pytest
import torch
from ignite.engine import Events
from torch import nn

from experiments.launch import parallel
from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.discriminator import Discriminator
from ignite_salak.models.synchronized import synchronize
from ignite_salak.ranks import rank, rank_count, unwrap
from ignite_salak.steps.adversarial import AdversarialStep, linear_threshold
from ignite_salak.steps.views import Views
from tests.processes import in_two_ranks
from tests.steps.test_self_training import ColorNet

CLASSES = 3
TIMES = 99


class Judge(nn.Module):
    """Odds from the mean of the maps' first class; features are the mean of every class."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.seen = []

    def forward(self, images, maps):
        self.seen.append((self.gain.requires_grad, images.detach(), maps.detach()))
        features = maps.mean(dim=(2, 3))
        return self.gain * (features[:, 0] - 0.5), features


def make_batch(seed=0, count=2, side=32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (2, count, 3, side, side), generator=generator)
    mask = torch.randint(0, CLASSES, (count, side, side), generator=generator)
    images, mask = images.to(torch.uint8), mask.to(torch.uint8)
    return {"labeled": {"image": images[0], "mask": mask}, "unlabeled": {"image": images[1]}}


def make_step(judge=None, sizes=(32, 32), scale=(1.0, 1.0), lr=0.1, judge_lr=0.1, **options):
    model = ColorNet()
    judge = Judge() if judge is None else judge
    return AdversarialStep(
        model,
        torch.optim.SGD(model.parameters(), lr=lr),
        judge,
        torch.optim.SGD(judge.parameters(), lr=judge_lr),
        CombinedLoss({"ce": 1.0}),
        CombinedLoss({"ce": 1.0}),
        num_classes=CLASSES,
        views=Views(RandomGeometry(True, scale), sizes, seed=0),
        **{"total": TIMES, "thresholds": (0.0, 0.0), **options},
    )


def run(step, batches, handlers=()):
    trainer = create_trainer(step, seed=0)
    outputs = []
    for event, handler in handlers:
        trainer.add_event_handler(event, handler)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(engine.state.output)
    )
    trainer.run(batches, max_epochs=1, epoch_length=len(batches))
    return outputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1}, "--st-loss-weight -1"),
        ({"matching_weight": -0.1}, r"--fm-loss-weight -0\.1"),
        ({"thresholds": (0.5, -0.5)}, r"--st-threshold 0\.5 -0\.5"),
        ({"accumulation": 0}, "--grad-accumulation 0"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_step(**options)


def test_the_threshold_rises_linearly():
    found = [linear_threshold(iteration, 5, (0.1, 0.3)) for iteration in range(1, 7)]
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.3])
    assert linear_threshold(1, 1, (0.6, 0.6)) == 0.6


def test_output_names_and_that_all_is_detached():
    [output] = run(make_step(), [make_batch()])
    assert set(output) == {
        *("loss", "ce", "fm", "st", "st_px", "st_share", "st_px_per_class"),
        *("d_loss", "d_real", "d_fake"),
    }
    assert not any(value.requires_grad for value in output.values())
    assert output["st_px_per_class"].sum() == output["st_px"] > 0
    assert output["st_px_per_class"][0] == 0
    assert output["st_share"].item() == pytest.approx(output["st_px"].item() / (2 * 32 * 32))


def test_events_fire_in_order():
    fired = []
    names = ("VIEWS_READY", "LOSS_COMPUTED", "BACKWARD_COMPLETED", "OPTIMIZER_STEPPED")
    handlers = [(TrainingEvents[name], lambda _, n=name: fired.append(n)) for name in names]
    run(make_step(), [make_batch()], handlers)
    assert fired == list(names)


def test_before_its_start_the_discriminator_rests_and_training_is_supervised():
    batch = make_batch()
    step = make_step(start_iteration=3)
    outputs = run(step, [batch] * 4)
    assert ["d_loss" in output for output in outputs] == [False, False, True, True]
    assert [len(images) for _, images in step.model.seen] == [2, 2, 4, 4]
    assert len(step.discriminator.seen) == 4
    supervised = run(make_step(), [{"labeled": batch["labeled"]}] * 2)
    for late, alone in zip(outputs, supervised, strict=False):
        assert late["loss"].item() == alone["loss"].item() == alone["ce"].item()
        assert late["st"] == late["fm"] == late["st_px"] == 0


def test_the_loss_and_its_parts_written_out():
    step = make_step(weight=2.0, matching_weight=3.0, thresholds=(0.4, 0.4))
    logits = []
    step.model.register_forward_hook(lambda module, args, output: logits.append(output.detach()))
    batch = make_batch()
    [output] = run(step, [batch])
    assert output["loss"].item() == pytest.approx(
        (output["ce"] + 3.0 * output["fm"] + 2.0 * output["st"]).item(), rel=1e-6
    )
    probabilities = logits[0][:, 1::2].softmax(2).mean(0)
    (_, _, maps), _ = step.discriminator.seen
    torch.testing.assert_close(maps[1::2], probabilities)
    means = maps.mean(dim=(2, 3))
    matching = (means[::2].mean(0) - means[1::2].mean(0)).abs().mean()
    assert output["fm"].item() == pytest.approx(matching.item(), rel=1e-5)
    scores = (means[:, 0] - 0.5).sigmoid()
    assert output["d_real"].item() == pytest.approx(scores[::2].mean().item(), rel=1e-5)
    assert output["d_fake"].item() == pytest.approx(scores[1::2].mean().item(), rel=1e-5)
    loss = -(scores[::2].log().mean() + (1 - scores[1::2]).log().mean()) / 2
    assert output["d_loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    labels = probabilities.argmax(1)
    crosses = [
        nn.functional.cross_entropy(
            head[1::2], torch.where(labels == 0, 255, labels), ignore_index=255
        )
        for head in logits[0]
    ]
    assert output["st"].item() == pytest.approx(torch.stack(crosses).mean().item(), rel=1e-5)


def test_true_maps_are_the_labels_and_ignored_pixels_are_0_in_every_class():
    batch = make_batch()
    batch["labeled"]["mask"][:, :5] = 255
    step = make_step()
    step.views = Views(RandomGeometry(False, (1.0, 1.0)), (32, 32), seed=0)
    run(step, [batch])
    (_, images, maps), _ = step.discriminator.seen
    mask = batch["labeled"]["mask"].long()
    assert torch.equal(maps[::2].sum(1) == 1, mask != 255)
    assert torch.equal(maps[::2].argmax(1)[:, 5:], mask[:, 5:])
    torch.testing.assert_close(images[1::2], batch["unlabeled"]["image"].float() / 255)


def test_padding_is_0_in_both_kinds_of_maps_and_never_learnt_from():
    batch = make_batch(count=8)
    batch["unlabeled"]["image"][:, :, :16] = 0
    step = make_step(scale=(0.5, 0.5))
    [output] = run(step, [batch])
    (_, images, maps), _ = step.discriminator.seen
    empty = (images == 0).all(1)
    assert empty[::2].float().mean() == pytest.approx(0.75, abs=0.05)
    assert (maps.sum(1)[empty] == 0).all()
    # A quarter of a view shows the patch, half of which is black.
    assert 0 < output["st_px"] <= output["st_share"] * 8 * 17 * 9
    assert output["st_px"] < 8 * 17 * 9


class Fixed(Judge):
    """Scores patch after patch as told."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, images, maps):
        odds, features = super().forward(images, maps)
        return 0 * odds + torch.tensor(self.scores).logit().repeat_interleave(2), features


def test_only_patches_that_reach_the_threshold_are_learnt_from():
    def kept(scores, thresholds=(0.6, 0.6)):
        step = make_step(Fixed(scores), thresholds=thresholds, lr=0.0)
        return run(step, [make_batch()])[0]

    both, first, second, none = (
        kept(scores) for scores in ([0.7, 0.7], [0.7, 0.5], [0.5, 0.7], [0.5, 0.5])
    )
    assert first["st_px"] > 0
    assert second["st_px"] > 0
    assert both["st_px"] == first["st_px"] + second["st_px"]
    assert torch.equal(
        both["st_px_per_class"], first["st_px_per_class"] + second["st_px_per_class"]
    )
    assert none["st_px"] == none["st"] == 0
    assert none["loss"].isfinite()


def test_the_threshold_of_the_iteration_counts():
    step = make_step(Fixed([0.5, 0.5]), thresholds=(0.1, 0.9), total=5)
    outputs = run(step, [make_batch()] * 5)
    assert [bool(output["st_px"] > 0) for output in outputs] == [True] * 2 + [True, False, False]


def test_each_network_moves_by_its_own_loss_alone():
    batch = make_batch()
    step = make_step(Discriminator(CLASSES, width=2), judge_lr=0.0)
    before = {name: value.clone() for name, value in step.discriminator.state_dict().items()}
    run(step, [batch] * 2)
    assert all(torch.equal(step.discriminator.state_dict()[k], v) for k, v in before.items())
    assert all(p.grad is not None for p in step.discriminator.parameters())
    step = make_step(lr=0.0)
    weights = [parameter.clone() for parameter in step.model.parameters()]
    gain = step.discriminator.gain.item()
    grads = []
    handler = (
        TrainingEvents.BACKWARD_COMPLETED,
        lambda: grads.append(step.discriminator.gain.grad),
    )
    run(step, [batch], [handler])
    assert grads == [None]  # the segmentation network's loss leaves the judge alone
    assert all(torch.equal(a, b) for a, b in zip(weights, step.model.parameters(), strict=True))
    assert step.discriminator.gain.item() != gain
    assert [grad for grad, *_ in step.discriminator.seen] == [False, True]


def test_feature_matching_pulls_the_maps_towards_the_true_shares():
    batch = make_batch(count=4)
    batch["labeled"]["mask"].fill_(1)
    step = make_step(weight=0.0, matching_weight=1.0, lr=0.5)
    step.loss = CombinedLoss({"ce": 1e-9})
    outputs = run(step, [batch] * 30)
    assert outputs[-1]["fm"] < 0.5 * outputs[0]["fm"]


def test_a_discriminator_that_wins_leaves_nothing_to_learn_from():
    # The guide's finding, in small: true maps are sharp, made-up ones are not.
    judge = Discriminator(CLASSES, width=8)
    judge.dropout.elements.p = 0.0  # with it, hundreds of steps are needed
    step = make_step(judge, lr=0.0, thresholds=(0.6, 0.6))
    step.discriminator_optimizer = torch.optim.Adam(judge.parameters(), lr=0.01)
    outputs = run(step, [make_batch(count=4)] * 80)
    last = outputs[-20:]
    assert sum(output["d_real"] for output in last) / 20 > 0.9
    assert sum(output["d_fake"] for output in last) / 20 < 0.1
    assert sum(output["st_px"] for output in last) == 0


def test_parts_of_a_batch_add_up():
    batch = make_batch(count=4)

    def train(accumulation):
        step = make_step(matching_weight=0.0, accumulation=accumulation, judge_lr=1.0)
        step.model.norm = nn.Identity()  # its statistics are those of a part
        step.model.forward = lambda images: torch.stack([h(images) for h in step.model.heads])
        return run(step, [batch])[0], step

    (whole, one), (parts, two) = train(1), train(2)
    for name in ("ce", "d_loss", "d_real", "d_fake", "st_px", "st_share"):
        assert parts[name].item() == pytest.approx(whole[name].item(), rel=1e-5), name
    assert torch.equal(parts["st_px_per_class"], whole["st_px_per_class"])
    assert two.discriminator.gain.item() == pytest.approx(one.discriminator.gain.item(), rel=1e-5)


class Plain(nn.Module):
    """In float64, so that only a real difference between one and two processes can be seen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.convolution = nn.Conv2d(3, CLASSES, 3, padding=1)
        self.double()

    def forward(self, images):
        return self.convolution(self.norm(images.double()))[None]


def train_as_rank():
    """Trains on this rank's part of every batch."""
    cpu = torch.device("cpu")
    model = synchronize(Plain(), cpu)
    torch.manual_seed(1)
    judge = synchronize(Discriminator(CLASSES, width=4), cpu)
    step = AdversarialStep(
        parallel(model, cpu),
        torch.optim.SGD(model.parameters(), lr=0.1),
        parallel(judge, cpu),
        torch.optim.SGD(judge.parameters(), lr=0.1),
        CombinedLoss({"ce": 1.0}),
        CombinedLoss({"ce": 1.0}),
        num_classes=CLASSES,
        views=Views(RandomGeometry(), (32, 48), seed=0),
        total=TIMES,
        thresholds=(0.3, 0.6),
        start_iteration=2,
    )
    batches = []
    for seed in range(4):
        batch = make_batch(seed, count=4)
        share = slice(rank() * 4 // rank_count(), (rank() + 1) * 4 // rank_count())
        batches.append({p: {k: v[share] for k, v in of.items()} for p, of in batch.items()})
    outputs = run(step, batches)
    weights = {**unwrap(step.model).state_dict(), **unwrap(step.discriminator).state_dict()}
    return {"outputs": outputs, "weights": weights}


def test_two_processes_train_as_one(tmp_path):
    alone = train_as_rank()
    found = in_two_ranks(train_as_rank, tmp_path)
    assert alone["outputs"][-1]["st_px"] > 0
    for one in found:
        for expected, output in zip(alone["outputs"], one["outputs"], strict=True):
            assert output.keys() == expected.keys()
            for name, value in expected.items():
                assert output[name].tolist() == pytest.approx(value.tolist(), rel=1e-4), name
        for name, value in alone["weights"].items():
            assert torch.allclose(one["weights"][name], value, rtol=1e-3, atol=1e-6), name


def test_it_learns():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (2, 4, 3, 16, 16), generator=generator)
    images = images.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    batch = {
        "labeled": {"image": images[0], "mask": images[0].argmax(1).to(torch.uint8)},
        "unlabeled": {"image": images[1]},
    }
    judge = Discriminator(CLASSES, width=4)
    outputs = run(make_step(judge, lr=1.0, sizes=(64, 64)), [batch] * 60)
    assert outputs[-1]["ce"] < 0.5 * outputs[0]["ce"]
