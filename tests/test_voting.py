import math

import pytest
import torch

from ignite_salak.voting import disagreement, vote, weighted_vote


def logits_from(votes, num_classes=3):
    """Logits whose argmax is ``votes`` (a nested list [N, B, H, W])."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(votes), num_classes)
    return one_hot.movedim(-1, 2).float() * 5


def test_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\)"):
        vote(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\)"):
        disagreement(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\)"):
        weighted_vote(torch.zeros(2, 3, 4, 4))
    logits = torch.zeros(2, 1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"valid mask of torch.bool \(4, 4\)"):
        disagreement(logits, torch.ones(4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"valid mask of torch\.int64"):
        disagreement(logits, torch.ones(1, 4, 4, dtype=torch.int64))


def test_vote_by_hand():
    # softmax([0, ln 3]) = [1/4, 3/4] and softmax([ln 4, 0]) = [4/5, 1/5]
    heads = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    probabilities = vote(heads.view(2, 1, 2, 1, 1))
    torch.testing.assert_close(probabilities.flatten(), torch.tensor([0.525, 0.475]))


def test_vote_is_not_the_softmax_of_the_mean():
    heads = torch.tensor([[6.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]).view(3, 1, 2, 1, 1)
    assert heads.mean(dim=0).argmax(dim=1).item() == 0
    expected = (1 / (1 + math.exp(-6)) + 2 / (1 + math.e)) / 3
    assert vote(heads)[0, 0].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_vote_is_float32_and_sums_to_one(dtype):
    logits = torch.randn(3, 2, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * 10
    probabilities = vote(logits.to(dtype))
    assert probabilities.dtype == torch.float32
    assert probabilities.shape == (2, 5, 4, 6)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, 4, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vote(logits.to(dtype)), probabilities)


def test_vote_of_one_head_is_its_softmax():
    logits = torch.randn(1, 2, 3, 4, 4)
    torch.testing.assert_close(vote(logits), logits[0].softmax(dim=1))


def test_weighted_vote_by_hand():
    # Pixel 0: all heads say 2. Pixel 1: two heads prefer 1 by a little, one prefers 0 by much.
    heads = torch.tensor(
        [
            [[0.0, 0.0], [0.0, 1.0], [3.0, 0.0]],
            [[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]],
            [[0.0, 9.0], [0.0, 0.0], [1.0, 0.0]],
        ]
    ).view(3, 1, 3, 1, 2)
    shares = weighted_vote(heads)
    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(shares[0, :, 0, 1], torch.tensor([6.0, 2.0, 0.0]) / 8)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(1, 1, 2))
    # With less weight the two heads win.
    assert weighted_vote(heads, weight=0.5).argmax(dim=1).flatten().tolist() == [2, 1]


def test_six_of_ten_heads_do_not_outvote_the_sum_but_eight_do():
    for many, expected in ((6, 0), (7, 0), (8, 1)):
        logits = torch.zeros(10, 1, 3, 1, 1)
        logits[:many, 0, 1] = 1.0
        logits[many:, 0, 0] = 9.0
        assert weighted_vote(logits.bfloat16()).argmax(dim=1).item() == expected


def test_disagreement_by_hand():
    logits = logits_from([[[[0, 1, 2, 2]]], [[[0, 1, 1, 2]]], [[[0, 2, 0, 2]]]])
    share = disagreement(logits)
    assert share.shape == ()
    assert share.dtype == torch.float32
    assert share == 0.5
    valid = torch.tensor([[[True, True, False, True]]])
    torch.testing.assert_close(disagreement(logits, valid), torch.tensor(1 / 3))
    torch.testing.assert_close(disagreement(logits.bfloat16(), valid=valid), torch.tensor(1 / 3))


def test_one_head_never_disagrees():
    assert disagreement(torch.randn(1, 2, 3, 4, 4)) == 0


def test_no_valid_pixel_is_no_disagreement():
    logits = logits_from([[[[0, 1]]], [[[1, 0]]]])
    assert disagreement(logits) == 1
    assert disagreement(logits, torch.zeros(1, 1, 2, dtype=torch.bool)) == 0
