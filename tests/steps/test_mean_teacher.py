"""V4's step on a network small enough to follow."""

import copy
import math

import pytest
import torch
from ignite.engine import Events
from torch import nn

from experiments.launch import parallel
from ignite_salak.alignment import DistributionAlignment
from ignite_salak.augment import ClassConfidence, RandomColors, RandomGeometry
from ignite_salak.engines import create_trainer
from ignite_salak.events import TrainingEvents
from ignite_salak.handlers import EMAUpdater
from ignite_salak.losses import CombinedLoss
from ignite_salak.models.synchronized import synchronize
from ignite_salak.ranks import rank, rank_count
from ignite_salak.steps import MeanTeacherStep
from ignite_salak.steps.mean_teacher import AlignedModel, ramp_up
from ignite_salak.steps.strong_views import StrongViews
from ignite_salak.steps.views import Views
from ignite_salak.symmetry import RandomSymmetries, Symmetry
from ignite_salak.thresholds import FixedThresholds, QuantileThresholds
from ignite_salak.voting import vote
from tests.processes import in_two_ranks

CLASSES = 3


class ColorNet(nn.Module):
    """Two heads, each a 1 x 1 convolution; remembers what it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(3)
        self.heads = nn.ModuleList(nn.Conv2d(3, CLASSES, 1) for _ in range(2))
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.detach().clone()))
        return torch.stack([head(self.norm(images)) for head in self.heads])


def make_batch(seed=0, count=4, side=32):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (2, count, 3, side, side), generator=generator)
    mask = torch.randint(0, CLASSES, (count, side, side), generator=generator)
    images, mask = images.to(torch.uint8), mask.to(torch.uint8)
    return {"labeled": {"image": images[0], "mask": mask}, "unlabeled": {"image": images[1]}}


def make_step(threshold=0.0, strong=None, lr=0.1, **options):
    model = ColorNet()
    ema = EMAUpdater(model, 0.9)
    thresholds = options.pop("thresholds", None) or FixedThresholds([threshold] * CLASSES)
    step = MeanTeacherStep(
        model,
        ema.model,
        torch.optim.SGD(model.parameters(), lr=lr),
        CombinedLoss({"ce": 1.0, "dice": 1.0}),
        thresholds=thresholds,
        views=Views(RandomGeometry(True, (1.0, 1.0)), (32, 32), seed=0),
        strong=strong or StrongViews(0, box_probability=0.0),
        **options,
    )
    return step, ema


def run(step, ema, batches, fired=None):
    trainer = create_trainer(step, seed=0)
    ema.attach(trainer)
    outputs = []
    for event in TrainingEvents if fired is not None else ():
        trainer.add_event_handler(event, lambda name: fired.append(name.name), event)
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: outputs.append(dict(engine.state.output))
    )
    trainer.run(batches, max_epochs=1)
    return outputs


@pytest.mark.parametrize(
    ("options", "flag"), [({"weight": -1}, "--st-loss-weight"), ({"accumulation": 0}, "--grad")]
)
def test_bad_numbers_are_refused(options, flag):
    with pytest.raises(ValueError, match=flag):
        make_step(**options)


def test_the_ramp_rises_to_one():
    assert ramp_up(1, 0) == 1.0
    assert ramp_up(100, 100) == ramp_up(300, 100) == 1.0
    assert ramp_up(50, 100) == pytest.approx(math.exp(-1.25))
    values = [ramp_up(i, 100) for i in range(1, 101)]
    assert values == sorted(values)
    assert values[0] < 0.01


def test_outputs_events_and_that_all_is_detached():
    fired = []
    step, ema = make_step()
    [output] = run(step, ema, [make_batch()], fired)
    output.pop("ema_decay")
    assert set(output) == {
        *("loss", "ce", "dice", "st", "st_weight"),
        *("st_px", "st_share", "st_px_per_class", "disagreement"),
    }
    assert not any(value.requires_grad for value in output.values())
    assert fired == [
        *("PSEUDO_LABELED", "VIEWS_READY", "LOSS_COMPUTED"),
        *("BACKWARD_COMPLETED", "OPTIMIZER_STEPPED"),
    ]


def test_the_teacher_votes_on_the_weak_view_and_the_student_learns_the_strong_one():
    step, ema = make_step(strong=StrongViews(0, RandomColors(), box_probability=0.0))
    with torch.no_grad():  # a teacher that says class 1 everywhere, unlike the student
        for head in ema.model.heads:
            head.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    seen = {}
    engine_step = step._losses

    def spy(images, targets, weights, factor):
        seen.update(images=images, targets=targets)
        return engine_step(images, targets, weights, factor)

    step._losses = spy
    batch = make_batch()
    run(step, ema, [batch])
    [(voting, weak)] = ema.model.seen
    assert not voting
    plain = batch["unlabeled"]["image"].float() / 255
    same = (weak == plain).flatten(1).all(1) | (weak == plain.flip(-1)).flatten(1).all(1)
    assert same.all()  # the weak view is the patch, mirrored or not
    assert (seen["targets"][:, 1] == 1).all()
    assert not torch.allclose(seen["images"][:, 1], weak, atol=0.01)
    [(training, views)] = step.model.seen
    assert training
    assert torch.equal(views[1::2], seen["images"][:, 1])


def test_the_loss_is_half_the_sum_and_divided_by_all_valid_pixels():
    everything, _ = run(*make_step(0.0, weight=2.0), [make_batch()] * 2)
    expected = 0.5 * (everything["ce"] + everything["dice"] + 2.0 * everything["st"])
    assert everything["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    # A threshold that few pixels reach makes the term small, not the same on fewer pixels.
    _, ema = make_step()
    weak = make_batch()["unlabeled"]["image"].float() / 255
    confidence = vote(ema.model(weak)).max(dim=1).values
    threshold = confidence[confidence < 1].quantile(0.9).item()
    [few] = run(*make_step(threshold), [make_batch()])
    assert 0 < few["st_share"] < 0.3
    assert few["st"] < 0.5 * everything["st"]


def test_weight_0_reads_no_unlabelled_patch():
    step, ema = make_step(weight=0.0)
    outputs = run(step, ema, [{"labeled": make_batch()["labeled"]}])
    assert outputs[0]["st_px"] == 0
    assert not ema.model.seen
    assert outputs[0]["loss"].item() == pytest.approx(
        (outputs[0]["ce"] + outputs[0]["dice"]).item(), rel=1e-6
    )


def test_adaptive_thresholds_and_paste_see_every_batch():
    thresholds = QuantileThresholds(CLASSES, ramp=10, decay=0.5, start=0.9, bounds=(0.1, 0.95))
    paste = ClassConfidence(CLASSES)
    step, ema = make_step(thresholds=thresholds, strong=StrongViews(0, None, 0.5, paste))
    before = thresholds.values.clone()
    run(step, ema, [make_batch(seed) for seed in range(4)])
    assert (thresholds.values < before).any()
    assert paste.updates.tolist() == [4, 4, 4]


def test_aligned_votes_are_selected_and_seen_by_the_thresholds():
    images = make_batch()["unlabeled"]["image"].float() / 255
    plain, _ = make_step()
    shifted, _ = make_step(alignment=DistributionAlignment(torch.tensor([1.0, 1e3, 1e-3])))
    before, _, split = plain.pseudo_label(images, 1)
    after, weights, same_split = shifted.pseudo_label(images, 1)
    assert (before.labels == 2).any()
    assert set(after.labels.unique().tolist()) <= {1, 255}
    assert split == same_split  # that of the heads, which nobody shifted
    assert (weights == 1).all()


@pytest.mark.parametrize("strength", [None, 0.7])
def test_the_aligned_model_votes_as_the_step_does(strength):
    images = make_batch()["unlabeled"]["image"].float() / 255
    shares = torch.tensor([1.0, 3.0, 1.0])
    alignment = DistributionAlignment(shares, strength=strength) if strength else None
    step, ema = make_step(alignment=alignment)
    pseudo, _, _ = step.pseudo_label(images, 1)
    with torch.no_grad():
        found = vote(AlignedModel(ema.model, alignment)(images))
    plain = vote(ema.model(images))
    aligned = plain if alignment is None else plain * alignment.factors[:, None, None]
    torch.testing.assert_close(found, aligned / aligned.sum(dim=1, keepdim=True))
    labels = found.argmax(dim=1)
    assert torch.equal(torch.where(labels == 0, 255, labels), pseudo.labels)


def test_a_turned_teacher_votes_on_the_same_pixels_another_way_up():
    images = make_batch()["unlabeled"]["image"].float() / 255
    turning = RandomSymmetries(0)
    iteration = next(i for i in range(99) if turning.draw(i) == (Symmetry(True, 1),))
    straight, _ = make_step()
    turned, ema = make_step(turning=turning)
    expected = straight.pseudo_label(images, iteration)
    found = turned.pseudo_label(images, iteration)  # of a network that looks at single pixels
    assert torch.equal(found[0].labels, expected[0].labels)
    assert found[2] == expected[2]
    [(_, view)] = ema.model.seen
    assert torch.equal(view, images.flip(-1).rot90(1, (-2, -1)))


def test_a_teacher_that_sees_several_views_votes_by_their_mean():
    images = make_batch()["unlabeled"]["image"].float() / 255
    step, ema = make_step(turning=RandomSymmetries(0, 3))
    teacher = ema.model.eval()
    ema.model.forward = lambda view: torch.stack([_downwards(view)])  # no symmetry leaves it alone
    found = step.pseudo_label(images, 1)[0].labels
    turns = RandomSymmetries(0, 3).draw(1)
    votes = [turn.undo(teacher(turn.apply(images))).softmax(dim=2) for turn in turns]
    assert len({tuple(vote.flatten().tolist()) for vote in votes}) > 1
    labels = torch.cat(votes).mean(dim=0).argmax(dim=1)
    assert torch.equal(found[found != 255], labels[found != 255])
    assert (found != 255).any()


def _downwards(images):
    """Logits that depend on how far down in the view a pixel lies, and on its colour."""
    rows = torch.linspace(0, 4, images.shape[-2])[:, None].expand(images.shape[-2:])
    return images + torch.stack([rows, 2 - rows, rows.square() / 4])


def test_doubt_makes_the_term_smaller():
    sure, _ = make_step(), None
    plain = run(*sure, [make_batch()])[0]["st"]
    doubted = run(*make_step(doubt=True), [make_batch()])[0]["st"]
    assert 0 < doubted < plain


def test_the_teacher_is_only_read():
    step, ema = make_step(lr=0.0)
    before = copy.deepcopy(ema.model.state_dict())
    step.pseudo_label(make_batch()["unlabeled"]["image"].float() / 255, 1)
    for name, value in ema.model.state_dict().items():
        assert torch.equal(value, before[name])
        assert not value.requires_grad


def train():
    """Some steps with everything on, on this rank's part of the batches."""
    cpu = torch.device("cpu")
    model = synchronize(ColorNet(), cpu)
    ema = EMAUpdater(model, 0.9)
    paste = ClassConfidence(CLASSES)
    thresholds = QuantileThresholds(CLASSES, ramp=4, decay=0.5, start=None, bounds=(0.2, 0.95))
    step = MeanTeacherStep(
        parallel(model, cpu),
        ema.model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        CombinedLoss({"ce": 1.0, "dice": 1.0}),
        thresholds=thresholds,
        views=Views(RandomGeometry(turns=True), (16, 32), seed=0),
        strong=StrongViews(0, RandomColors(), 0.5, paste),
        alignment=DistributionAlignment(torch.tensor([1.0, 2.0, 3.0])),
        turning=RandomSymmetries(0, 2),
        doubt=True,
    )
    share = 4 // rank_count()
    mine = slice(rank() * share, (rank() + 1) * share)
    # Small batches: none of their pixels is within 1e-6 of a threshold, where rounding decides.
    batches = [
        {pool: {k: v[mine] for k, v in tensors.items()} for pool, tensors in batch.items()}
        for batch in (make_batch(seed, side=16) for seed in range(9, 12))
    ]
    outputs = run(step, ema, batches)
    return {
        "outputs": outputs,
        "weights": ema.model.state_dict(),
        "thresholds": thresholds.values,
        "confidence": paste.scores(),
    }


def test_two_processes_train_as_one(tmp_path):
    alone = train()
    assert alone["outputs"][-1]["st_px"] > 0
    for found in in_two_ranks(train, tmp_path):
        torch.testing.assert_close(found["weights"], alone["weights"], rtol=1e-4, atol=1e-6)
        for name in ("thresholds", "confidence"):
            torch.testing.assert_close(found[name], alone[name], rtol=1e-4, atol=1e-5)
        for expected, output in zip(alone["outputs"], found["outputs"], strict=True):
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_it_learns():
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (2, 4, 3, 16, 16), generator=generator)
    images = images.repeat_interleave(2, -1).repeat_interleave(2, -2).to(torch.uint8)
    batch = {
        "labeled": {"image": images[0], "mask": images[0].argmax(1).to(torch.uint8)},
        "unlabeled": {"image": images[1]},
    }
    step, ema = make_step(0.6, lr=1.0, ramp=20)
    outputs = run(step, ema, [batch] * 80)
    assert outputs[-1]["ce"] < 0.5 * outputs[0]["ce"]
    pseudo, _, _ = step.pseudo_label(images[1].float() / 255, 80)
    kept = pseudo.labels != 255
    assert kept.float().mean() > 0.3
    truth = images[1].argmax(1)
    assert (pseudo.labels == truth)[kept].float().mean() > 0.9
