"""Addressed randomness: every random draw has a seed of its own, made from what it is for.

Nothing depends on how much randomness was used before, so an interrupted run continues bit for bit
without any saved generator state, and evaluation cannot disturb training.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

__all__ = ["derive_seed", "numpy_generator", "torch_generator"]


def derive_seed(seed: int, *address: int | str) -> int:
    """Returns a 63-bit seed that is a function of the run's seed and of an address.

    Args:
        seed: seed of the run.
        address: what the randomness is for, such as ``(rank, iteration, "augment")``.
    """
    # A NumPy integer means what the Python integer means, though its repr differs.
    parts = [part if isinstance(part, str) else int(part) for part in address]
    text = repr((int(seed), *parts)).encode("utf-8")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_generator(seed: int, *address: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by ``derive_seed``."""
    return torch.Generator().manual_seed(derive_seed(seed, *address))


def numpy_generator(seed: int, *address: int | str) -> np.random.Generator:
    """Returns a NumPy generator seeded by ``derive_seed``."""
    return np.random.default_rng(derive_seed(seed, *address))
