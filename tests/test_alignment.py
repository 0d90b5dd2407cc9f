"""Probabilities are shifted towards the classes' shares."""

import pytest
import torch

from ignite_salak.alignment import DistributionAlignment
from ignite_salak.ranks import rank
from tests.processes import in_two_ranks

SHARES = torch.tensor([1.0, 60.0, 39.0])


def random_probabilities(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(count, 3, 8, 8, generator=generator)).softmax(dim=1)


def everything(probabilities):
    return torch.ones(len(probabilities), 8, 8, dtype=torch.bool)


def test_the_mean_becomes_the_shares():
    # Repeating the shift on its own result converges to the shares (Saerens et al. 2002).
    probabilities = random_probabilities()
    for _ in range(500):
        align = DistributionAlignment(SHARES)
        probabilities = align(probabilities, everything(probabilities))
    found = probabilities.mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, SHARES / 100, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(align.factors, torch.ones(3), rtol=1e-2, atol=0)


def test_one_call_by_hand():
    probabilities = torch.tensor([0.2, 0.2, 0.6])[None, :, None, None].expand(1, 3, 8, 8)
    aligned = DistributionAlignment(SHARES)(probabilities, everything(probabilities))
    torch.testing.assert_close(aligned[0, :, 3, 4], SHARES / 100)


def test_a_class_found_too_often_is_found_less():
    probabilities = random_probabilities()
    aligned = DistributionAlignment(SHARES)(probabilities, everything(probabilities))
    torch.testing.assert_close(aligned.sum(dim=1), torch.ones(4, 8, 8))
    assert (aligned[:, 0] < probabilities[:, 0]).all()
    assert (aligned.argmax(1) == 1).sum() > (probabilities.argmax(1) == 1).sum()


def test_strength_0_changes_nothing_and_a_half_goes_half_the_way():
    probabilities = random_probabilities()
    valid = everything(probabilities)
    none, half, full = (
        DistributionAlignment(SHARES, strength=strength) for strength in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(none(probabilities, valid), probabilities)
    half(probabilities, valid)
    full(probabilities, valid)
    torch.testing.assert_close(half.factors**2, full.factors)


def test_pixels_that_do_not_count_do_not_count():
    probabilities = random_probabilities()
    valid = everything(probabilities)
    valid[:, :4] = False
    part, alone = DistributionAlignment(SHARES), DistributionAlignment(SHARES)
    part(probabilities, valid)
    alone(probabilities[:, :, 4:], valid[:, 4:])
    torch.testing.assert_close(part.factors, alone.factors)


def test_a_batch_without_content_changes_nothing():
    probabilities = random_probabilities()
    align = DistributionAlignment(SHARES)
    nothing = torch.zeros(4, 8, 8, dtype=torch.bool)
    torch.testing.assert_close(align(probabilities, nothing), probabilities)
    align(probabilities, ~nothing)
    before = align.factors
    align(probabilities, nothing)
    assert torch.equal(align.factors, before)


def test_the_average_begins_as_a_plain_mean_and_then_follows():
    first, second = random_probabilities(seed=0), random_probabilities(seed=1)
    align, both = DistributionAlignment(SHARES), DistributionAlignment(SHARES)
    for probabilities in (first, second):
        align(probabilities, everything(probabilities))
    joined = torch.cat([first, second])
    both(joined, everything(joined))
    torch.testing.assert_close(align.factors, both.factors)
    quick = DistributionAlignment(SHARES, decay=0.0)
    alone = DistributionAlignment(SHARES)
    for probabilities in (first, second):
        quick(probabilities, everything(probabilities))
    alone(second, everything(second))
    torch.testing.assert_close(quick.factors, alone.factors)


def test_its_state_comes_back():
    align, again = DistributionAlignment(SHARES), DistributionAlignment(SHARES)
    for seed in range(3):
        probabilities = random_probabilities(seed=seed)
        align(probabilities, everything(probabilities))
    again.load_state_dict(align.state_dict())
    probabilities = random_probabilities(seed=3)
    valid = everything(probabilities)
    assert torch.equal(align(probabilities, valid), again(probabilities, valid))
    with pytest.raises(ValueError, match="3 classes, not 2"):
        DistributionAlignment(torch.ones(2)).load_state_dict(align.state_dict())


@pytest.mark.parametrize(
    ("shares", "options", "words"),
    [
        ([1.0, 0.0], {}, "above 0"),
        ([1.0, 1.0], {"strength": 1.5}, "--alignment 1.5"),
        ([1.0, 1.0], {"decay": 1.0}, "decay 1.0"),
    ],
)
def test_bad_numbers_are_refused(shares, options, words):
    with pytest.raises(ValueError, match=words):
        DistributionAlignment(torch.tensor(shares), **options)


def half_of_the_batch():
    mine = random_probabilities()[2 * rank() : 2 * rank() + 2]
    align = DistributionAlignment(SHARES)
    align(mine, everything(mine))
    return align.factors


def test_two_processes_align_as_one(tmp_path):
    probabilities = random_probabilities()
    align = DistributionAlignment(SHARES)
    align(probabilities, everything(probabilities))
    for found in in_two_ranks(half_of_the_batch, tmp_path):
        torch.testing.assert_close(found, align.factors)
