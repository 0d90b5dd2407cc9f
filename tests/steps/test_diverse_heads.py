"""DiverseHead on a network small enough to follow."""

import math

import pytest
import torch
from ignite.engine import Events
from torch import nn

from experiments.launch import parallel
from ignite_salak.augment import RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import GradientClipper
from ignite_salak.losses import CombinedLoss
from ignite_salak.ranks import rank, rank_count
from ignite_salak.steps.diverse_heads import DiverseHeadsStep, WeightedVoteModel, draw_heads
from ignite_salak.steps.views import Views
from ignite_salak.voting import vote, weighted_vote
from tests.processes import in_two_ranks

CLASSES = 3
HEADS = 4


class ManyHeads(nn.Module):
    """Heads with dropout behind a shared trunk; remembers what it saw."""

    def __init__(self, heads=HEADS, dropout=True):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 6, 1)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(6, 6, 1),
                nn.ReLU(),
                nn.Dropout(0.1 * index) if dropout else nn.Identity(),
                nn.Conv2d(6, CLASSES, 1),
            )
            for index in range(heads)
        )
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.detach().clone()))
        features = self.trunk(images)
        return torch.stack([head(features) for head in self.heads])


def make_batch(seed=0, count=2, side=32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (2, count, 3, side, side), generator=generator)
    mask = torch.randint(0, CLASSES, (count, side, side), generator=generator)
    images, mask = images.to(torch.uint8), mask.to(torch.uint8)
    return {"labeled": {"image": images[0], "mask": mask}, "unlabeled": {"image": images[1]}}


def make_step(
    model=None,
    sizes=(32, 64),
    lr=0.1,
    adamw=False,
    water=5.0,
    wrap=lambda model: model,
    **options,
):
    model = ManyHeads() if model is None else model
    optimizer = (
        torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
        if adamw
        else torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.1)
    )
    defaults = {"mode": "freezing", "weight": 3.0, "start_iteration": 1, "num_classes": CLASSES}
    return DiverseHeadsStep(
        wrap(model),
        optimizer,
        CombinedLoss({"ce": 1.0, "dice": 1.0}, torch.tensor([1.0, water, 1.0])),
        CombinedLoss({"ce": 1.0, "dice": 1.0}),
        views=Views(RandomGeometry(scale_range=(1.0, 1.0)), sizes, seed=0),
        **{**defaults, **options},
    )


def run(step, batches, start=0, handlers=(), clip=None):
    trainer = create_trainer(step, seed=0)
    if clip is not None:
        GradientClipper(step.model, clip).attach(trainer)
    outputs = []
    for event, handler in handlers:
        trainer.add_event_handler(event, handler)
    trainer.load_state_dict({"iteration": start, "epoch_length": start + 99, "max_epochs": 1})
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(dict(engine.state.output))
    )
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=start + len(batches)), lambda: trainer.terminate()
    )
    trainer.run(batches * 2, max_epochs=1, epoch_length=start + 99)
    return outputs


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before, module):
    return all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


# Refusals


def test_one_head_is_refused():
    with pytest.raises(ValueError, match=r"1 head .* --num-heads 10"):
        make_step(ManyHeads(1))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="--mode 'melting'"):
        make_step(mode="melting")


def test_heads_without_dropout_cannot_drop_more():
    with pytest.raises(ValueError, match="--mode freezing"):
        make_step(ManyHeads(dropout=False), mode="dropout")
    make_step(ManyHeads(dropout=False), mode="freezing")


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="--st-loss-weight -1"):
        make_step(weight=-1)


# Draws


def test_draws_are_addressed_and_halve_the_heads():
    draws = [draw_heads(10, 3, iteration) for iteration in range(1, 401)]
    assert draws == [draw_heads(10, 3, iteration) for iteration in range(1, 401)]
    assert draws != [draw_heads(10, 4, iteration) for iteration in range(1, 401)]
    assert {len(perturbed) for perturbed, _ in draws} == {5}
    for head in range(10):
        # 400 draws of probability 1/2 and 1/10: five standard deviations either way.
        assert abs(sum(head in perturbed for perturbed, _ in draws) - 200) < 50
        assert abs(sum(learner == head for _, learner in draws) - 40) < 30
    assert {len(draw_heads(5, 0, iteration)[0]) for iteration in range(9)} == {2}


# The vote


def test_output_names_and_that_all_is_detached():
    [output] = run(make_step(), [make_batch()])
    assert set(output) == {
        *("loss", "ce", "dice", "st", "st_px", "st_share", "st_px_per_class", "disagreement"),
    }
    assert not any(value.requires_grad for value in output.values())
    assert output["st_px_per_class"].sum() == output["st_px"]
    assert output["st_px_per_class"][0] == 0


def test_the_vote_is_taken_on_the_plain_view_and_training_sees_another():
    step = make_step()
    batch = make_batch(count=8)
    run(step, [batch])
    (voting, plain), (training, views) = step.model.seen
    assert (voting, training) == (False, True)
    assert torch.equal(plain, batch["unlabeled"]["image"].float() / 255)
    assert not torch.equal(views[1::2][..., :32, :32], plain)


def test_pseudo_labels_are_the_weighted_vote_without_background_and_empty_pixels():
    step = make_step()
    images = make_batch(count=8)["unlabeled"]["image"].float() / 255
    images[0, :, :16] = 0
    pseudo, split = step.pseudo_label(images)
    with torch.no_grad():
        logits = step.model.eval()(images)
    expected = weighted_vote(logits).argmax(1)
    assert (expected == 0).any()
    expected[0, :16] = 0
    assert torch.equal(pseudo.labels, torch.where(expected == 0, 255, expected))
    assert pseudo.valid == 7 * 32 * 32 + 16 * 32
    assert 0 < split <= 1


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


def test_one_model_shows_the_vote_as_one_head():
    model = ManyHeads().eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        shown = WeightedVoteModel(model)(images)
        expected = weighted_vote(model(images))
    assert shown.shape == (1, 2, CLASSES, 8, 8)
    torch.testing.assert_close(vote(shown), expected)


# The loss


def test_loss_is_the_sum_over_heads_plus_weight_times_that_of_the_learner():
    step = make_step()
    seen = []
    for loss in (step.loss, step.self_training_loss):
        forward = loss.forward

        def spy(logits, target, forward=forward):
            seen.append(logits.detach())
            return forward(logits, target)

        loss.forward = spy
    [output] = run(step, [make_batch()])
    expected = HEADS * (output["ce"] + output["dice"]) + 3.0 * output["st"]
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    labelled, voted = seen
    assert len(labelled) == HEADS
    assert len(voted) == 1


def test_only_the_drawn_head_learns_from_the_vote():
    # Nothing is labelled, so that the vote is all there is to learn from.
    batch = make_batch()
    batch["labeled"]["mask"].fill_(255)
    for start in range(3):
        step = make_step(lr=0.1, perturb_from=99)
        step.optimizer.param_groups[0]["weight_decay"] = 0.0
        before = [weights(head) for head in step.model.heads]
        run(step, [batch], start=start)
        _, learner = draw_heads(HEADS, 0, start + 1)
        moved = [not same(b, head) for b, head in zip(before, step.model.heads, strict=True)]
        assert moved == [index == learner for index in range(HEADS)]


def test_self_training_starts_when_told_and_weight_0_is_supervised():
    batch = make_batch()
    outputs = run(make_step(start_iteration=3), [batch] * 4)
    assert [bool(output["st_px"] > 0) for output in outputs] == [False, False, True, True]
    off = run(make_step(weight=0.0), [batch] * 2)
    alone = run(make_step(), [{"labeled": batch["labeled"]}] * 2)
    assert [o["loss"].item() for o in off] == [o["loss"].item() for o in alone]


def test_an_all_ignored_mask_is_finite():
    batch = make_batch()
    batch["labeled"]["mask"].fill_(255)
    batch["unlabeled"]["image"].zero_()
    [output] = run(make_step(), [batch])
    assert output["loss"] == 0
    assert output["st_px"] == 0


# Dynamic freezing


@pytest.mark.parametrize("adamw", [False, True])
def test_frozen_heads_keep_their_weights_and_the_others_move(adamw):
    # Momentum and weight decay would move them, from the second iteration on.
    step = make_step(adamw=adamw, lr=0.01)
    history = [[weights(head) for head in step.model.heads]]

    def remember():
        history.append([weights(head) for head in step.model.heads])

    run(
        step,
        [make_batch(seed) for seed in range(5)],
        handlers=[(Events.ITERATION_COMPLETED, remember)],
    )
    for iteration in range(1, 6):
        frozen, _ = draw_heads(HEADS, 0, iteration)
        for index in range(HEADS):
            before, after = history[iteration - 1][index], history[iteration][index]
            still = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
            assert still == (index in frozen)


def test_gradients_pass_through_frozen_heads_into_the_trunk():
    gradients = {}
    for name, perturb_from in (("frozen", 1), ("free", 99)):
        step = make_step(ManyHeads(dropout=False), perturb_from=perturb_from)

        def remember(engine, step=step, name=name):
            gradients[name] = [p.grad.clone() for p in step.model.parameters()]

        run(step, [make_batch()], handlers=[(TrainingEvents.BACKWARD_COMPLETED, remember)])
    names = [name for name, _ in ManyHeads(dropout=False).named_parameters()]
    frozen, _ = draw_heads(HEADS, 0, 1)
    for name, found, free in zip(names, gradients["frozen"], gradients["free"], strict=True):
        still = name.startswith(tuple(f"heads.{index}." for index in frozen))
        assert torch.equal(found, torch.zeros_like(free) if still else free), name


def test_the_norm_that_is_clipped_is_that_of_the_weights_that_move():
    step = make_step()
    norms = []

    def measure():
        frozen, _ = draw_heads(HEADS, 0, 1)
        free = [head for index, head in enumerate(step.model.heads) if index not in frozen]
        moving = [p.grad for module in (step.model.trunk, *free) for p in module.parameters()]
        norms.append(math.sqrt(sum(gradient.square().sum().item() for gradient in moving)))

    handlers = [(TrainingEvents.BACKWARD_COMPLETED, measure)]
    [output] = run(step, [make_batch()], handlers=handlers, clip=math.inf)
    assert output["grad_norm"].item() == pytest.approx(norms[0], rel=1e-5)


def test_freezing_begins_when_told():
    step = make_step(perturb_from=3)
    counts = []
    handlers = [(Events.ITERATION_COMPLETED, lambda: counts.append(len(step.perturbed)))]
    run(step, [make_batch()] * 4, handlers=handlers)
    assert counts == [0, 0, 2, 2]


# Dynamic dropout


def test_half_of_the_heads_drop_at_one_half_and_the_others_at_their_own_rate():
    step = make_step(mode="dropout", lr=0.0)
    rates = []

    def remember():
        rates.append([head[2].p for head in step.model.heads])

    run(step, [make_batch()] * 6, handlers=[(TrainingEvents.LOSS_COMPUTED, remember)])
    own = [0.0, 0.1, 0.2, 0.1 * 3]
    for iteration, found in enumerate(rates, 1):
        dropping, _ = draw_heads(HEADS, 0, iteration)
        assert found == [0.5 if index in dropping else own[index] for index in range(HEADS)]
    assert len({tuple(found) for found in rates}) > 1


def test_dropout_moves_all_heads():
    step = make_step(mode="dropout")
    before = [weights(head) for head in step.model.heads]
    run(step, [make_batch()])
    assert not any(same(b, head) for b, head in zip(before, step.model.heads, strict=True))


# Addressing, accumulation, ranks


@pytest.mark.parametrize("mode", ["freezing", "dropout"])
def test_an_iteration_does_not_depend_on_those_before_it(mode):
    batch = make_batch()
    outputs = run(make_step(mode=mode, lr=0.0), [make_batch(1), make_batch(2), batch])
    [output] = run(make_step(mode=mode, lr=0.0), [batch], start=2)
    assert output["loss"].item() == outputs[2]["loss"].item()


def test_parts_of_a_batch_freeze_the_same_heads():
    step = make_step(accumulation=2)
    before = [weights(head) for head in step.model.heads]
    [output] = run(step, [make_batch(count=4)])
    frozen, _ = draw_heads(HEADS, 0, 1)
    moved = {i for i, head in enumerate(step.model.heads) if not same(before[i], head)}
    assert moved == set(range(HEADS)) - frozen
    expected = HEADS * (output["ce"] + output["dice"]) + 3.0 * output["st"]
    assert output["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def train():
    """Some steps on this rank's part of the batches; dropout differs between ranks, so none."""
    model = ManyHeads()
    for head in model.heads:
        head[2].p = 0.0
    step = make_step(model, wrap=lambda m: parallel(m, torch.device("cpu")), lr=0.05)
    batches = [make_batch(seed, count=4) for seed in range(3)]
    share = 4 // rank_count()
    mine = slice(rank() * share, (rank() + 1) * share)
    batches = [
        {pool: {k: v[mine] for k, v in tensors.items()} for pool, tensors in batch.items()}
        for batch in batches
    ]
    outputs = run(step, batches, clip=1.0)
    return {"outputs": outputs, "weights": model.state_dict()}


def test_two_processes_train_as_one(tmp_path):
    alone = train()
    first, second = in_two_ranks(train, tmp_path)
    for name, value in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-4, atol=1e-6)
    for expected, found in zip(alone["outputs"], first["outputs"], strict=True):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


# It works


@pytest.mark.parametrize("mode", ["freezing", "dropout"])
def test_it_learns(mode):
    # The class is the brightest channel: a 1 x 1 convolution can tell.
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (2, 4, 3, 16, 16), generator=generator)
    images = images.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    batch = {
        "labeled": {"image": images[0], "mask": images[0].argmax(1).to(torch.uint8)},
        "unlabeled": {"image": images[1]},
    }
    options = {"lr": 0.03, "adamw": True, "water": 1.0, "weight": 2.0, "sizes": (32, 32)}
    step = make_step(mode=mode, start_iteration=60, **options)
    outputs = run(step, [batch] * 95)
    assert outputs[-1]["ce"] < 0.7 * outputs[0]["ce"]
    pseudo, _ = step.pseudo_label(images[1].float() / 255)
    kept = pseudo.labels != 255
    assert (pseudo.labels == images[1].argmax(1))[kept].float().mean() > 0.8
