"""Runs a function in two processes that form one group."""

import ignite.distributed as idist
import torch

from ignite_salak.ranks import rank


def in_two_ranks(function, folder, *arguments):
    """Calls ``function(*arguments)`` in two spawned processes; returns what each returned."""
    with idist.Parallel(backend="gloo", nproc_per_node=2, start_method="spawn") as processes:
        processes.run(_call, function, folder, *arguments)
    return [torch.load(folder / f"rank{number}.pt") for number in range(2)]


def _call(local_rank, function, folder, *arguments):
    torch.set_num_threads(1)
    torch.save(function(*arguments), folder / f"rank{rank()}.pt")
