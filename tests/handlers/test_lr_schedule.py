"""Warm-up and cosine."""

import pytest
import torch
from ignite.engine import Engine

from ignite_salak.handlers import WarmupCosine, warmup_cosine_factor


def optimizer_with_two_groups():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [
        {"name": "encoder", "params": [first], "lr": 0.01},
        {"name": "decoder", "params": [second], "lr": 0.1},
    ]
    return torch.optim.SGD(groups)


def rates_of_a_run(start=0, total=10, warmup=4):
    optimizer = optimizer_with_two_groups()
    seen = []

    def step(engine, batch):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return {}

    engine = Engine(step)
    WarmupCosine(optimizer, warmup=warmup, total=total).attach(engine)
    engine.load_state_dict({"iteration": start, "epoch_length": total, "max_epochs": 1})
    engine.run(range(total), max_epochs=1, epoch_length=total)
    return seen, engine


@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_a_warm_up_that_does_not_fit_is_refused(warmup):
    with pytest.raises(ValueError, match=f"--warmup-iters {warmup}"):
        WarmupCosine(optimizer_with_two_groups(), warmup=warmup, total=10)


def test_factor_by_hand():
    factors = [warmup_cosine_factor(step, 4, 12) for step in range(13)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0)
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert warmup_cosine_factor(0, 0, 10) == 1.0


def test_groups_keep_their_ratio_and_the_rates_are_reported():
    seen, engine = rates_of_a_run()
    assert len(seen) == 10
    for encoder, decoder in seen:
        assert decoder == pytest.approx(10 * encoder)
    assert seen[0] == pytest.approx([0.0025, 0.025])
    assert engine.state.output == {"lr/encoder": seen[-1][0], "lr/decoder": seen[-1][1]}


def test_a_resumed_run_has_the_same_rates():
    whole, _ = rates_of_a_run()
    rest, _ = rates_of_a_run(start=6)
    assert rest == whole[6:]
