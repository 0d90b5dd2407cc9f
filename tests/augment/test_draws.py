"""A patch's numbers are its own, wherever it is computed."""

import pytest
import torch

from ignite_salak.augment.draws import draw_rows, to_device


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_row_does_not_depend_on_how_many_follow():
    whole = draw_rows(8, 5, generator())
    assert whole.shape == (8, 5)
    assert torch.equal(draw_rows(3, 5, generator()), whole[:3])


def test_ranks_draw_the_rows_of_their_patches():
    whole = draw_rows(8, 5, generator())
    assert torch.equal(draw_rows(4, 5, generator(), first=4), whole[4:])


def test_numbers_are_uniform_and_come_from_the_generator_alone():
    state = torch.get_rng_state()
    rows = draw_rows(1000, 4, generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert (rows >= 0).all()
    assert (rows < 1).all()
    assert torch.allclose(rows.mean(0), torch.full((4,), 0.5), atol=0.05)
    assert not torch.equal(rows, draw_rows(1000, 4, generator(1)))


def test_on_the_cpu_nothing_is_copied():
    values = torch.rand(3)
    assert to_device(values, "cpu") is values


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_not_waited_for():
    torch.cuda.set_sync_debug_mode("error")
    try:
        moved = to_device(torch.arange(3), "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert moved.tolist() == [0, 1, 2]
