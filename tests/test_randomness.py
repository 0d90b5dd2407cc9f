"""Seeds are functions of their address and of nothing else."""

import itertools

import numpy as np
import pytest
import torch

from ignite_salak.randomness import derive_seed, numpy_generator, torch_generator


def test_seed_is_the_same_on_every_machine():
    # Runs are continued and compared across machines and versions: the numbers must never change.
    assert derive_seed(0) == 2631537505891389924
    assert derive_seed(7, 0, 12, "augment") == 6246131068782687887


def test_every_address_has_a_seed_of_its_own():
    addresses = [
        *itertools.product(range(3), range(30), ("augment", "batch")),
        (1,), ("1",), (12, 3), (1, 23), (1, 2, 3), ("1, 2",), ("a", "b"), ("ab",), ("a, b",),
    ]  # fmt: skip
    seeds = {derive_seed(seed, *address) for seed in (0, 1, -1) for address in addresses}
    assert len(seeds) == 3 * len(addresses)


def test_seed_fits_every_generator():
    for iteration in range(200):
        assert 0 <= derive_seed(0, iteration) < 2**63
    torch_generator(2**63, "large seed")
    numpy_generator(-5, "negative seed")


@pytest.mark.parametrize("number", [np.int64(12), np.int32(12), torch.tensor(12), True + 11])
def test_integers_of_other_kinds_count_as_integers(number):
    assert derive_seed(3, number, "x") == derive_seed(3, 12, "x")
    assert derive_seed(number, 1) == derive_seed(12, 1)


def test_generators_repeat_and_leave_global_state_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = torch.rand(3, generator=torch_generator(1, "a"))
    assert torch.equal(first, torch.rand(3, generator=torch_generator(1, "a")))
    assert not torch.equal(first, torch.rand(3, generator=torch_generator(1, "b")))
    assert numpy_generator(1, "a").random() == numpy_generator(1, "a").random()
    assert numpy_generator(1, "a").random() != numpy_generator(2, "a").random()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
