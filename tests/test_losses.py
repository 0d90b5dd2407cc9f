"""Losses against hand-computed numbers and torch's own."""

import math

import pytest
import torch
from torch.nn import functional

from ignite_salak.losses import (
    CombinedLoss,
    consistency_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
)

LOSS_WEIGHTS = {"ce": 0.4, "dice": 0.4, "focal": 0.2}


def random_case(classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 8, 8, generator=generator)
    target = torch.randint(0, classes, (2, 8, 8), generator=generator)
    target[:, :2] = 255
    return logits, target


@pytest.mark.parametrize("weights", [{"cross": 1.0}, {"ce": -1.0}, {"ce": 0.0, "dice": 0.0}])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="loss"):
        CombinedLoss(weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_torch(weighted):
    logits, target = random_case()
    class_weights = torch.tensor([0.1, 3.0, 1.0, 65.8, 0.5]) if weighted else None
    expected = functional.cross_entropy(logits, target, class_weights, ignore_index=255)
    ours = cross_entropy(logits.log_softmax(1), target, class_weights)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_loss_by_hand():
    probabilities = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    expected = 0.1**2 * -math.log(0.9)
    assert focal_loss(probabilities.log(), target).item() == pytest.approx(expected, rel=1e-4)


def test_focal_loss_weights_hard_pixels_by_class():
    probabilities = torch.tensor([[0.9, 0.6], [0.1, 0.4]]).view(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    weights = torch.tensor([1.0, 3.0])
    parts = [0.1**2 * -math.log(0.9), 3.0 * 0.6**2 * -math.log(0.4)]
    ours = focal_loss(probabilities.log(), target, weights)
    assert ours.item() == pytest.approx(sum(parts) / 4.0, rel=1e-4)


def test_dice_by_hand():
    # Class 0 has pixels a and b, class 1 pixel c; pixel d is ignored.
    p0 = torch.tensor([0.8, 0.6, 0.3, 0.5])
    log_p = torch.stack([p0, 1 - p0]).view(1, 2, 1, 4).log()
    target = torch.tensor([[[0, 0, 1, 255]]])
    dice0 = 2 * (0.8 + 0.6) / ((0.8 + 0.6 + 0.3) + 2)
    dice1 = 2 * 0.7 / ((0.2 + 0.4 + 0.7) + 1)
    expected = 1 - (dice0 + dice1) / 2
    assert dice_loss(log_p, target).item() == pytest.approx(expected, rel=1e-5)


def test_dice_is_over_the_batch_and_an_absent_class_adds_nothing():
    # Perfect prediction of two classes of five: with the three absent ones counted it would be 0.6.
    target = torch.tensor([[[0, 0]], [[1, 1]]])
    logits = torch.full((2, 5, 1, 2), -50.0).scatter_(1, target[:, None], 50.0)
    assert dice_loss(logits.log_softmax(1), target).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_target_that_is_all_ignored_is_finite_and_has_zero_gradient(weighted):
    class_weights = torch.rand(5) if weighted else None
    logits = torch.randn(3, 2, 5, 4, 4, requires_grad=True)
    parts = CombinedLoss(LOSS_WEIGHTS, class_weights)(logits, torch.full((2, 4, 4), 255))
    assert {name: value.item() for name, value in parts.items()} == dict.fromkeys(parts, 0.0)
    parts["total"].backward()
    assert logits.grad.abs().max() == 0


def test_ignored_pixels_do_not_matter():
    logits, target = random_case()
    changed = logits.clone()
    changed[:, :, :2] = 100 * torch.randn(2, 5, 2, 8)
    loss = CombinedLoss(LOSS_WEIGHTS, torch.rand(5))
    before, after = loss(logits[None], target), loss(changed[None], target)
    for name in before:
        assert before[name].item() == pytest.approx(after[name].item(), rel=1e-6)


def test_parts_are_named_and_summed():
    logits, target = random_case()
    parts = CombinedLoss(LOSS_WEIGHTS)(logits[None], target)
    assert set(parts) == {"ce", "dice", "focal", "total"}
    assert parts["total"].item() == pytest.approx(
        sum(weight * parts[name].item() for name, weight in LOSS_WEIGHTS.items()), rel=1e-6
    )
    assert set(CombinedLoss({"ce": 1.0, "dice": 0.0})(logits[None], target)) == {"ce", "total"}


def test_every_head_has_a_loss_of_its_own():
    # Two heads that are wrong in opposite ways average to a fair vote, but each is punished.
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    right, wrong = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    logits = torch.stack([right, wrong]).view(2, 1, 2, 1, 1)
    loss = CombinedLoss({"ce": 1.0})
    averaged = loss(logits.mean(0, keepdim=True), target)["ce"].item()
    expected = -(right.log_softmax(0)[0] + wrong.log_softmax(0)[0]).item() / 2
    assert loss(logits, target)["ce"].item() == pytest.approx(expected, rel=1e-6)
    assert expected > averaged + 1


def test_logit_adjustment_by_hand():
    # One pixel of the rare class 1; z = (0, 0), prior (0.9, 0.1): p = 0.1, not 0.5.
    logits = torch.zeros(1, 1, 2, 1, 1)
    target = torch.ones(1, 1, 1, dtype=torch.long)
    prior = torch.tensor([0.9, 0.1])
    adjusted = CombinedLoss({"ce": 1.0, "focal": 1.0}, log_prior=prior.log())(logits, target)
    assert adjusted["ce"].item() == pytest.approx(-math.log(0.1), rel=1e-5)
    assert adjusted["focal"].item() == pytest.approx(0.9**2 * -math.log(0.1), rel=1e-5)
    # tau = 0.5: square roots of the priors.
    half = CombinedLoss({"ce": 1.0}, log_prior=0.5 * prior.log())(logits, target)["ce"]
    assert half.item() == pytest.approx(-math.log(0.1**0.5 / (0.9**0.5 + 0.1**0.5)), rel=1e-5)


def test_logit_adjustment_equals_the_loss_of_adjusted_logits():
    logits, target = random_case()
    heads = torch.stack([logits, logits.flip(0)])
    class_weights, log_prior = torch.rand(5), torch.rand(5).softmax(0).log()
    ours = CombinedLoss(LOSS_WEIGHTS, class_weights, log_prior)(heads, target)
    by_hand = CombinedLoss(LOSS_WEIGHTS, class_weights)(heads + log_prior.view(5, 1, 1), target)
    assert {name: value.item() for name, value in ours.items()} == {
        name: value.item() for name, value in by_hand.items()
    }


def test_an_equal_prior_and_none_change_nothing():
    logits, target = random_case()
    plain = CombinedLoss(LOSS_WEIGHTS)(logits[None], target)
    none = CombinedLoss(LOSS_WEIGHTS, None, None)(logits[None], target)
    equal = CombinedLoss(LOSS_WEIGHTS, log_prior=torch.full((5,), -1.6))(logits[None], target)
    for name, value in plain.items():
        assert torch.equal(none[name], value)
        assert equal[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_a_constant_network_learns_equal_logits_under_logit_adjustment():
    # 90 % of the pixels are class 0: plain cross-entropy learns log 9, the adjusted one 0.
    target = torch.tensor([0] * 9 + [1]).view(1, 1, 10)
    found = []
    for log_prior in (None, torch.tensor([0.9, 0.1]).log()):
        bias = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([bias], line_search_fn="strong_wolfe")
        loss = CombinedLoss({"ce": 1.0}, log_prior=log_prior)

        def closure(bias=bias, optimizer=optimizer, loss=loss):
            optimizer.zero_grad()
            total = loss(bias.view(1, 1, 2, 1, 1).expand(1, 1, 2, 1, 10), target)["total"]
            total.backward()
            return total

        optimizer.step(closure)
        found.append((bias[0] - bias[1]).item())
    assert found == pytest.approx([math.log(9), 0.0], abs=1e-3)


def test_the_prior_is_no_weight_of_the_model_and_moves_with_the_loss():
    loss = CombinedLoss({"ce": 1.0}, log_prior=torch.zeros(3))
    assert loss.state_dict() == {}
    assert loss.to("meta").log_prior.device.type == "meta"


def test_an_infinite_prior_is_refused():
    prior = torch.tensor([0.5, 0.5, 0.0])
    with pytest.raises(ValueError, match="count a class that does not occur as one pixel"):
        CombinedLoss({"ce": 1.0}, log_prior=prior.log())


def test_float32_under_bfloat16_logits():
    logits, target = random_case()
    total = CombinedLoss(LOSS_WEIGHTS)(logits[None].bfloat16(), target)["total"]
    exact = CombinedLoss(LOSS_WEIGHTS)(logits[None], target)["total"]
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(exact.item(), rel=0.02)


def test_descends():
    torch.manual_seed(0)
    _, target = random_case()
    logits = torch.zeros(2, 2, 5, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    loss = CombinedLoss(LOSS_WEIGHTS)
    for _ in range(50):
        optimizer.zero_grad()
        loss(logits, target)["total"].backward()
        optimizer.step()
    assert loss(logits, target)["total"].item() < 0.05


def test_consistency_is_divided_by_all_valid_pixels():
    # Two heads, one row of four pixels: kept, kept with half the weight, not kept, not valid.
    logits, _ = random_case()
    heads = torch.stack([logits, logits.flip(1)])[:, :1, :, :1, :4]
    labels = torch.tensor([[[1, 0, 255, 255]]])
    weights = torch.tensor([[[1.0, 0.5, 1.0, 1.0]]])
    valid = torch.tensor([[[True, True, True, False]]])
    each = [
        functional.cross_entropy(head, labels, ignore_index=255, reduction="none") for head in heads
    ]
    expected = sum(float(loss[0, 0, 0] + 0.5 * loss[0, 0, 1]) for loss in each) / 2 / 3
    assert consistency_loss(heads, labels, weights, valid).item() == pytest.approx(
        expected, rel=1e-5
    )
    nothing = torch.full_like(labels, 255)
    assert consistency_loss(heads, nothing, weights, valid & False) == 0
