"""Batches are functions of seed and iteration, whatever decodes them."""

import itertools
import logging
import multiprocessing

import numpy as np
import pytest
import torch

from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.loaders import EvaluationBatches, TrainingStream
from ignite_salak.data.patches import scan_patches

LABELED, UNLABELED, BATCH = 10, 7, 3


@pytest.fixture
def root(tmp_path, add_patch):
    """Ten patches with masks and seven without; the red of a patch is its number."""
    root = tmp_path / "data"
    for number in range(LABELED + UNLABELED):
        mask = np.full((16, 16), number % 3) if number < LABELED else None
        add_patch(root, f"p_patch_000_{number:03d}", mask, color=(number, 50, 50))
    return root


@pytest.fixture
def pools(root, classes):
    def make(**options):
        index = scan_patches(root, cache=False)
        reader = MaskReader(classes)
        return (
            PatchDataset(index, np.flatnonzero(index.has_mask), reader, **options),
            PatchDataset(index, np.flatnonzero(~index.has_mask), **options),
        )

    return make


@pytest.fixture
def stream(pools):
    def make(seed=5, skip_bad_files=False, batch_size=BATCH, start=0, **options):
        made = TrainingStream(
            *pools(skip_bad_files=skip_bad_files), batch_size=batch_size, seed=seed, **options
        )
        made.start = start
        return made

    return make


def take(stream, count):
    batches = iter(stream)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def numbers(batch, pool):
    return batch[pool]["image"][:, 0, 0, 0].tolist()


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert set(batch) == set(other)
        for pool in batch:
            assert set(batch[pool]) == set(other[pool])
            for key in batch[pool]:
                assert torch.equal(batch[pool][key], other[pool][key])


class TestTrainingStream:
    def test_form_of_a_batch(self, stream):
        (batch,) = take(stream(), 1)
        assert {pool: set(content) for pool, content in batch.items()} == {
            "labeled": {"image", "mask"},
            "unlabeled": {"image"},
        }
        assert batch["labeled"]["image"].shape == (BATCH, 3, 16, 16)
        assert batch["labeled"]["mask"].shape == (BATCH, 16, 16)
        assert batch["labeled"]["image"].dtype == batch["labeled"]["mask"].dtype == torch.uint8
        masks = batch["labeled"]["mask"][:, 0, 0].tolist()
        assert masks == [number % 3 for number in numbers(batch, "labeled")]

    def test_pools_stay_apart_and_each_patch_is_seen_once_a_round(self, stream):
        batches = take(stream(), 70)
        for pool, members in (
            ("labeled", range(LABELED)),
            ("unlabeled", range(LABELED, LABELED + UNLABELED)),
        ):
            seen = [number for batch in batches for number in numbers(batch, pool)]
            rounds = [seen[i : i + len(members)] for i in range(0, 210, len(members))]
            assert all(sorted(one) == list(members) for one in rounds)
            assert len({tuple(one) for one in rounds}) > len(rounds) // 2

    @pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 10, 23])
    def test_stream_may_start_anywhere(self, stream, start):
        assert_same(take(stream(start=start), 5), take(stream(), start + 5)[start:])

    def test_stream_may_start_far_away(self, stream):
        # Iteration 10 * 7 * 1000 is a common multiple of the rounds: offsets are 0, rounds are not.
        batches = take(stream(start=70_000), 10)
        seen = [number for batch in batches for number in numbers(batch, "labeled")]
        assert all(sorted(seen[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
        assert (
            seen[:10]
            != [number for batch in take(stream(), 4) for number in numbers(batch, "labeled")][:10]
        )

    def test_iterating_again_starts_again_at_start(self, stream):
        one = stream(start=4)
        assert_same(take(one, 3), take(one, 3))

    def test_seed_decides(self, stream):
        orders = {
            tuple(number for batch in take(stream(seed=seed), 3) for number in numbers(batch, pool))
            for seed in range(5)
            for pool in ("labeled", "unlabeled")
        }
        assert len(orders) == 10

    def test_labelled_batches_do_not_depend_on_the_unlabelled_pool(self, stream, pools):
        alone = take(TrainingStream(pools()[0], None, batch_size=BATCH, seed=5), 6)
        assert all(set(batch) == {"labeled"} for batch in alone)
        assert_same(alone, [{"labeled": batch["labeled"]} for batch in take(stream(), 6)])

    @pytest.mark.parametrize(
        "options",
        [
            {"num_workers": 1},
            {"num_workers": 2},
            {"num_workers": 2, "multiprocessing_context": "spawn"},  # the way of Windows
            {"num_workers": 0, "multiprocessing_context": "spawn"},
        ],
    )
    def test_workers_do_not_change_batches(self, stream, options):
        assert_same(take(stream(start=2, **options), 6), take(stream(start=2), 6))

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_global_randomness_is_neither_read_nor_changed(self, stream, num_workers):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = take(stream(num_workers=num_workers), 3)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert_same(first, take(stream(num_workers=num_workers), 3))

    def test_batch_of_the_whole_pool(self, stream):
        for batch in take(stream(batch_size=UNLABELED), 4):
            assert sorted(numbers(batch, "unlabeled")) == list(range(10, 17))

    @pytest.mark.parametrize(
        ("batch_size", "words"),
        [(8, "unlabeled pool of 7"), (11, "labeled pool of 10"), (0, "not at least")],
    )
    def test_impossible_batch_size_is_refused(self, stream, batch_size, words):
        with pytest.raises(ValueError, match=f"--batch-size {batch_size} .*{words}"):
            stream(batch_size=batch_size)


class TestBadFilesInTheStream:
    @pytest.mark.parametrize("num_workers", [0, 2])
    @pytest.mark.parametrize("number", [4, 12])
    def test_error_is_one_line_in_the_parent(self, root, stream, num_workers, number):
        path = root / "images" / f"p_patch_000_{number:03d}.png"
        path.write_bytes(b"no image")
        with pytest.raises(BadFileError, match="--skip-bad-files") as caught:
            take(stream(num_workers=num_workers), 20)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_skipped_files_are_listed_once(self, root, stream, num_workers, caplog):
        paths = [root / "images" / f"p_patch_000_{number:03d}.png" for number in (4, 12)]
        for path in paths:
            path.write_bytes(b"no image")
        made = stream(skip_bad_files=True, num_workers=num_workers)
        with caplog.at_level(logging.WARNING):
            batches = take(made, 20)
        assert sorted(reason.split(": ")[0] for reason in made.bad_files) == [*map(str, paths)]
        assert len(caplog.records) == 2
        for batch in batches:
            assert len(numbers(batch, "labeled")) == len(numbers(batch, "unlabeled")) == BATCH
            assert "bad_files" not in batch["labeled"]
        seen = {number for batch in batches for number in numbers(batch, "labeled")}
        assert seen == set(range(LABELED)) - {4}

    def test_skipping_does_not_change_the_other_patches(self, root, stream):
        whole = take(stream(), 10)
        (root / "images" / "p_patch_000_004.png").write_bytes(b"")
        for batch, other in zip(whole, take(stream(skip_bad_files=True), 10), strict=True):
            pairs = zip(numbers(batch, "labeled"), numbers(other, "labeled"), strict=True)
            assert all(one == two or (one, two) == (4, 5) for one, two in pairs)

    def test_a_pool_of_bad_files_is_an_error_even_then(self, root, stream):
        for path in (root / "masks").iterdir():
            path.write_bytes(b"")
        with pytest.raises(BadFileError, match="no other patch can be read"):
            take(stream(skip_bad_files=True), 1)


@pytest.fixture
def as_rank(monkeypatch):
    """Returns a function that makes this process one of several."""

    def become(number, count):
        monkeypatch.setattr("ignite_salak.data.loaders.rank", lambda: number)
        monkeypatch.setattr("ignite_salak.data.loaders.rank_count", lambda: count)

    return become


class TestRanks:
    @pytest.mark.parametrize("count", [2, 4])
    @pytest.mark.parametrize("start", [0, 3])
    def test_parts_of_the_ranks_make_the_batch_of_one_process(self, stream, as_rank, count, start):
        whole = take(stream(batch_size=4, start=start), 6)
        parts = []
        for number in range(count):
            as_rank(number, count)
            parts.append(take(stream(batch_size=4, start=start), 6))
        for batch, *of_ranks in zip(whole, *parts, strict=True):
            for pool, content in batch.items():
                for key, value in content.items():
                    assert torch.equal(torch.cat([part[pool][key] for part in of_ranks]), value)

    def test_batch_that_cannot_be_divided_is_refused(self, stream, as_rank):
        as_rank(0, 2)
        with pytest.raises(ValueError, match="--batch-size 3 cannot be divided among 2 processes"):
            stream(batch_size=3)

    def test_each_patch_is_judged_by_one_rank(self, pools, as_rank):
        seen = []
        for number in range(3):
            as_rank(number, 3)
            for batch in EvaluationBatches(pools()[0], batch_size=2):
                seen += batch["image"][:, 0, 0, 0].tolist()
        assert sorted(seen) == list(range(LABELED))

    def test_fewer_patches_than_ranks_are_refused(self, pools, as_rank):
        as_rank(0, LABELED + 1)
        with pytest.raises(ValueError, match="10 patches to judge on, but 11 processes"):
            EvaluationBatches(pools()[0], batch_size=2)


class TestEvaluationBatches:
    @pytest.mark.parametrize("num_workers", [0, 1])
    def test_two_pools_share_processes_that_stay(self, pools, num_workers):
        labeled, other = pools()[0], pools()[0]
        other.patches = other.patches[:3]
        first = EvaluationBatches(labeled, batch_size=4, num_workers=num_workers)
        second = EvaluationBatches(other, batch_size=4, workers_of=first)
        before = {child.pid for child in multiprocessing.active_children()}
        children = []
        for _ in range(2):
            assert sum(len(batch["image"]) for batch in first) == LABELED
            assert [len(batch["image"]) for batch in second] == [3]
            children.append({child.pid for child in multiprocessing.active_children()} - before)
        assert len(children[0]) == num_workers
        assert children[0] == children[1]

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_every_patch_once_in_order(self, pools, num_workers):
        batches = EvaluationBatches(pools()[0], batch_size=4, num_workers=num_workers)
        assert len(batches) == 3
        for _ in range(2):
            taken = list(batches)
            assert [set(batch) for batch in taken] == [{"image", "mask"}] * 3
            seen = [batch["image"][:, 0, 0, 0].tolist() for batch in taken]
            assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            masks = torch.cat([batch["mask"][:, 3, 3] for batch in taken])
            assert masks.tolist() == [number % 3 for number in range(LABELED)]

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_global_randomness_is_left_alone(self, pools, num_workers):
        before = torch.get_rng_state()
        list(EvaluationBatches(pools()[0], batch_size=4, num_workers=num_workers))
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize("skip_bad_files", [False, True])
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_bad_file_is_never_replaced(self, root, pools, skip_bad_files, num_workers):
        # A patch counted twice in place of another would make the score a little wrong.
        path = root / "masks" / "p_patch_000_006.png"
        path.write_bytes(b"")
        labeled, _ = pools(skip_bad_files=skip_bad_files)
        batches = EvaluationBatches(labeled, batch_size=4, num_workers=num_workers)
        with pytest.raises(BadFileError, match="is empty") as caught:
            list(batches)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
