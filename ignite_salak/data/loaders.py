"""The endless stream of training batches, addressed by iteration, and the evaluation batches."""

from __future__ import annotations

import itertools
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ignite_salak.classes import BACKGROUND
from ignite_salak.data.datasets import PatchDataset, collate
from ignite_salak.data.decoding import BadFileError
from ignite_salak.randomness import numpy_generator, torch_generator
from ignite_salak.ranks import rank, rank_count

__all__ = ["EvaluationBatches", "RareClasses", "TrainingStream"]

_LOGGER = logging.getLogger(__name__)
_Address = tuple[str, int]


@dataclass(frozen=True, eq=False)
class RareClasses:
    """Draws labelled patches by class first, rare classes more often (rare-class sampling).

    Hoyer et al. 2022 (DAFormer, arXiv:2111.14887): class c, of share f_c of the labelled pixels, is
    drawn with probability softmax((1 - f_c) / T) over the classes, then a patch that has enough of
    it, all such patches being equal. Here the background is never drawn, nor a class that no patch
    has enough of; and only a part of each batch is drawn so, which the paper does for all of it.

    Args:
        counts: pixels of every class in every patch of the labelled pool, int [N, C].
        temperature: T; the lower, the more the rarest class prevails.
        least: pixels of a class, in the files' own resolution, that are enough: 256 of a patch of
            256 x 256.
        share: of the labelled patches of every batch that are drawn so, rounded to whole patches.

    Raises:
        ValueError: a number is out of its range, or no patch has enough of any class.
    """

    counts: np.ndarray
    temperature: float = 0.1
    least: int = 256
    share: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature {self.temperature} of the rare classes is not above 0")
        if self.least < 1:
            raise ValueError(f"least {self.least} pixels of a rare class: at least 1 is needed")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share {self.share} of the rare classes is not between 0 and 1")
        if not self._found:
            raise ValueError(
                f"none of {len(self.counts)} labelled patches has {self.least} pixels of a class "
                "other than the background: lower that number, or draw no class first"
            )

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probability of every class to be drawn, float64 [C]."""
        pixels = self.counts.sum(axis=0)
        classes = list(self._found)
        rarity = (1.0 - pixels[classes] / pixels.sum()) / self.temperature
        found = np.exp(rarity - rarity.max())
        probabilities = np.zeros(len(pixels))
        probabilities[classes] = found / found.sum()
        return probabilities

    def places(self, batch_size: int) -> list[int]:
        """Positions of a batch that are drawn so, spread evenly over it and so over the ranks."""
        bounds = [int(place * self.share + 0.5) for place in range(batch_size + 1)]
        return [place for place in range(batch_size) if bounds[place] < bounds[place + 1]]

    def pixels(self, batch_size: int) -> np.ndarray:
        """Expected pixels of every class in a batch, drawn patches and others, float64 [C]."""
        drawn = sum(
            probability * self.counts[self._found[index]].mean(axis=0)
            for index, probability in enumerate(self.probabilities)
            if probability > 0
        )
        places = len(self.places(batch_size))
        return places * drawn + (batch_size - places) * self.counts.mean(axis=0)

    def draw(self, count: int, generator: np.random.Generator) -> list[int]:
        """Draws patches, with replacement.

        Args:
            count: how many.
            generator: what draws.

        Returns:
            Positions in the labelled pool.
        """
        upper = self.probabilities.cumsum()
        which, where = generator.random((2, count))
        drawn = np.searchsorted(upper / upper[-1], which, side="right").tolist()
        patches = [self._found[index] for index in drawn]
        return [int(of[int(at * len(of))]) for of, at in zip(patches, where, strict=True)]

    @cached_property
    def _found(self) -> dict[int, np.ndarray]:
        """Positions of the patches that have enough of a class, by class."""
        enough = {
            index: np.flatnonzero(self.counts[:, index] >= self.least)
            for index in range(self.counts.shape[1])
            if index != BACKGROUND
        }
        return {index: patches for index, patches in enough.items() if len(patches)}


class TrainingStream:
    """Endless ``{"labeled": {"image", "mask"}, "unlabeled": {"image"}}``, uint8, on the CPU.

    Batch i is a function of the seed and i: the pools are walked in a new order every time round,
    and the order depends on nothing but the seed, the pool and the round. So the stream can start
    at any iteration, with any number of workers. Where there are several ranks, each gets its part
    of every batch, and the parts make the same batch with any number of ranks.

    Args:
        labeled: patches with masks.
        unlabeled: patches without masks, or None; then the batches have no "unlabeled".
        batch_size: patches of either kind a batch, of all ranks together.
        seed: seed of the run.
        rare: draws a part of the labelled patches of every batch, a function of the seed and of i
            as well; the other part walks through the pool. None walks with all of them.
        num_workers: processes that decode; 0 decodes in the training process.
        pin_memory: put the batches into page-locked memory, for CUDA.
        multiprocessing_context: "spawn", "fork" or None for the system's own way.

    Attributes:
        start: number of the iteration before the first batch; set it before iterating.
        bad_files: reasons of all files passed over so far.

    Raises:
        ValueError: a batch has fewer than two patches, or more than a pool, or cannot be divided
            among the ranks; or ``rare`` is about another pool.
    """

    def __init__(
        self,
        labeled: PatchDataset,
        unlabeled: PatchDataset | None,
        *,
        batch_size: int,
        seed: int,
        rare: RareClasses | None = None,
        num_workers: int = 0,
        pin_memory: bool = False,
        multiprocessing_context: str | None = None,
    ) -> None:
        self.pools = {"labeled": labeled}
        if unlabeled is not None:
            self.pools["unlabeled"] = unlabeled
        if batch_size < 2:
            raise ValueError(
                f"--batch-size {batch_size} is not at least 2: BatchNorm cannot train on one patch"
            )
        for name, pool in self.pools.items():
            if batch_size > len(pool):
                raise ValueError(
                    f"--batch-size {batch_size} is larger than the {name} pool of {len(pool)} "
                    f"patches; lower it to {len(pool)} or less"
                )
        if batch_size % rank_count():
            raise ValueError(
                f"--batch-size {batch_size} cannot be divided among {rank_count()} processes; "
                f"make it a multiple of {rank_count()}"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.rare = rare
        self.start = 0
        self.bad_files: list[str] = []
        self._options: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "multiprocessing_context": multiprocessing_context if num_workers else None,
        }

    @property
    def rare(self) -> RareClasses | None:
        """What draws a part of the labelled patches; set it before iterating."""
        return self._rare

    @rare.setter
    def rare(self, rare: RareClasses | None) -> None:
        pool = len(self.pools["labeled"])
        if rare is not None and len(rare.counts) != pool:
            raise ValueError(
                f"rare classes were counted in {len(rare.counts)} patches, but the labeled pool "
                f"has {pool}; count those of the pool"
            )
        self._rare = rare

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = DataLoader(
            _Pools(self.pools),
            batch_sampler=_AddressedBatches(
                {name: len(pool) for name, pool in self.pools.items()},
                self.batch_size,
                self.seed,
                self.start,
                self.rare,
            ),
            collate_fn=_collate_pools,
            worker_init_fn=_leave_ctrl_c_to_the_parent,
            generator=torch_generator(self.seed, "workers"),
            **self._options,
        )
        for batch in loader:
            for pool in batch.values():
                self._report(pool)
            yield batch

    def _report(self, pool: dict[str, Any]) -> None:
        for reason in pool.pop("bad_files"):
            if "image" not in pool:
                raise BadFileError(f"{reason}; repair it, or go on without it by --skip-bad-files")
            if reason not in self.bad_files:
                self.bad_files.append(reason)
                _LOGGER.warning("skipped a bad file: %s", reason)


class EvaluationBatches:
    """Every patch once, in order.

    A batch is ``{"image": uint8 [B, 3, H, W], "mask": uint8 [B, H, W], "source": int64 [B]}``, the
    last the source images' positions in ``PatchIndex.sources``; "mask" only where masks are read.

    Where there are several ranks, each gets every R-th patch, none twice. The processes that
    decode stay alive from one time to the next.

    Args:
        patches: the patches.
        batch_size: patches a batch; the last batch may be smaller.
        num_workers: processes that decode.
        pin_memory: put the batches into page-locked memory, for CUDA.
        workers_of: batches not yet read from, whose processes shall decode these too, in turn;
            then ``num_workers`` and ``pin_memory`` are theirs.

    Raises:
        ValueError: there are fewer patches than ranks.
    """

    def __init__(
        self,
        patches: PatchDataset,
        *,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        workers_of: EvaluationBatches | None = None,
    ) -> None:
        if len(patches) < rank_count():
            raise ValueError(f"{len(patches)} patches to judge on, but {rank_count()} processes")
        self._reader: _Reader = (
            _Reader(num_workers, pin_memory) if workers_of is None else workers_of._reader
        )
        self._patches = patches
        name = self._reader.add(patches)
        mine = [(name, position) for position in range(rank(), len(patches), rank_count())]
        self._batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for addresses, batch in zip(self._batches, self._reader.read(self._batches), strict=True):
            bad_files = batch.pop("bad_files")
            if bad_files:
                raise BadFileError(bad_files[0])
            patches = self._patches.patches[[position for _, position in addresses]]
            sources = self._patches.index.source_ids[patches]
            yield {**batch, "source": torch.from_numpy(sources.astype(np.int64))}


class _Reader:
    """A loader whose processes stay alive, and whose batches are chosen each time anew."""

    def __init__(self, num_workers: int, pin_memory: bool) -> None:
        self._pools: dict[str, PatchDataset] = {}
        self._chosen = _ChosenBatches()
        self._loader = DataLoader(
            _Pools(self._pools),
            batch_sampler=self._chosen,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=_collate_pools,
            worker_init_fn=_leave_ctrl_c_to_the_parent,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )

    def add(self, patches: PatchDataset) -> str:
        """Takes a data set in, before the processes start, and returns its name."""
        name = str(len(self._pools))
        self._pools[name] = patches
        return name

    def read(self, batches: list[list[_Address]]) -> Iterator[dict[str, Any]]:
        self._chosen.batches = batches
        for pools in self._loader:
            yield from pools.values()


class _ChosenBatches(Sampler[list[_Address]]):
    """Whatever batches were chosen last."""

    def __init__(self) -> None:
        self.batches: list[list[_Address]] = []

    def __iter__(self) -> Iterator[list[_Address]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Pools(Dataset[tuple[str, dict[str, Any]]]):
    """Items of several data sets, addressed by (pool name, position)."""

    def __init__(self, pools: dict[str, PatchDataset]) -> None:
        self.pools = pools

    def __getitem__(self, address: _Address) -> tuple[str, dict[str, Any]]:
        name, position = address
        return name, self.pools[name][position]


class _AddressedBatches(Sampler[list[_Address]]):
    """Addresses of this rank's part of the batches start, start + 1, ... without end."""

    def __init__(
        self,
        sizes: dict[str, int],
        batch_size: int,
        seed: int,
        start: int,
        rare: RareClasses | None = None,
    ) -> None:
        self.sizes = sizes
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.rare = rare

    def __iter__(self) -> Iterator[list[_Address]]:
        pools = {name: self._walk(name, self.batch_size) for name in self.sizes}
        if self.rare is not None:
            pools["labeled"] = self._mixture("labeled", self.rare)
        share = self.batch_size // rank_count()
        mine = slice(rank() * share, (rank() + 1) * share)
        while True:
            yield [
                (name, position)
                for name, positions in pools.items()
                for position in list(itertools.islice(positions, self.batch_size))[mine]
            ]

    def _mixture(self, name: str, rare: RareClasses) -> Iterator[int]:
        """Drawn positions in their places, between those of a walk."""
        places = rare.places(self.batch_size)
        walk = self._walk(name, self.batch_size - len(places))
        for iteration in itertools.count(self.start):
            drawn = rare.draw(len(places), numpy_generator(self.seed, "rare classes", iteration))
            of_place = dict(zip(places, drawn, strict=True))
            for place in range(self.batch_size):
                yield of_place[place] if place in of_place else next(walk)

    def _walk(self, name: str, pace: int) -> Iterator[int]:
        """Positions in a new order every round, from the iteration ``start`` on."""
        rounds, offset = divmod(self.start * pace, self.sizes[name])
        while True:
            generator = torch_generator(self.seed, name, rounds)
            order = torch.randperm(self.sizes[name], generator=generator)
            yield from order[offset:].tolist()
            rounds, offset = rounds + 1, 0


def _leave_ctrl_c_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate_pools(items: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    pools: dict[str, list[dict[str, Any]]] = {}
    for name, item in items:
        pools.setdefault(name, []).append(item)
    return {name: collate(members) for name, members in pools.items()}
