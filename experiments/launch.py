"""Several processes, started by torchrun or SLURM, become the ranks of one run."""

from __future__ import annotations

import os
from datetime import timedelta

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ignite_salak.ranks import rank_count

__all__ = ["join_ranks", "leave_ranks", "parallel", "rank_is_lost", "ranks_per_machine"]

# The first rank writes checkpoints and waits for monitors while the others wait for it.
_PATIENCE = timedelta(minutes=10)
_SIGNS_OF_A_LOST_RANK = (
    *("connection closed by peer", "connection reset", "connection refused", "broken pipe"),
    *("timed out", "timeout", "socket", "gloo", "nccl"),
)


def join_ranks(device: str) -> str:
    """Joins the other processes of the run, if the launcher says that there are any.

    torchrun says it by WORLD_SIZE, SLURM by the number of tasks of a step (``srun``). GPUs talk by
    NCCL, one per process; CPUs by gloo.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        The device of this process.

    Raises:
        ValueError: the device has a number, or this machine has fewer GPUs than processes.
    """
    if not _is_one_of_many():
        return device
    kind = device
    if device == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if ":" in kind:
        raise ValueError(
            f"--device {device} with several processes: each takes a GPU of its own; use "
            "--device cuda"
        )
    local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    if kind == "cuda" and local >= torch.cuda.device_count():
        raise ValueError(
            f"process {local + 1} of this machine has no GPU, there are "
            f"{torch.cuda.device_count()}: start as many processes as there are GPUs"
        )
    idist.initialize("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    return f"cuda:{local}" if kind == "cuda" else kind


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Lets the ranks average their gradients; a model of one process stays as it is.

    Args:
        model: made by ``models.synchronized.synchronize``; the same on every rank.
        device: where it is.
    """
    if rank_count() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def leave_ranks() -> None:
    """Ends what ``join_ranks`` began."""
    if idist.get_world_size() > 1:
        idist.finalize()


def ranks_per_machine() -> int:
    """Processes of the run on this machine."""
    return idist.get_nproc_per_node()


def rank_is_lost(error: RuntimeError) -> bool:
    """Whether an error means that another process of the run died or stopped answering."""
    text = str(error).lower()
    return idist.get_world_size() > 1 and any(sign in text for sign in _SIGNS_OF_A_LOST_RANK)


def _is_one_of_many() -> bool:
    tasks = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_STEP_NUM_TASKS") or "1"
    return int(tasks) > 1
