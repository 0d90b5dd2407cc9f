"""Batches are functions of seed and iteration, whatever decodes them."""

import itertools
import logging
import multiprocessing

import numpy as np
import pytest
import torch

from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import BadFileError, MaskReader
from ignite_salak.data.loaders import EvaluationBatches, RareClasses, TrainingStream
from ignite_salak.data.patches import scan_patches
from ignite_salak.randomness import numpy_generator

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


@pytest.fixture
def rare():
    """Rare classes over the ten patches; class 3 is seldom, class 4 never enough for a patch."""

    def make(**options):
        counts = np.tile([300, 500, 0, 0, 0], (LABELED, 1))
        counts[:4, 2] = 200
        counts[2:4, 3] = [40, 20]
        counts[5, 4] = 9
        return RareClasses(counts, **{"least": 20, **options})

    return make


class TestRareClasses:
    @pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
    def test_probabilities_are_those_of_the_paper_over_what_can_be_drawn(self, rare, temperature):
        made = rare(temperature=temperature)
        pixels = np.array([3000, 5000, 800, 60, 9])
        rarity = np.exp((1 - pixels / pixels.sum()) / temperature)[1:4]
        np.testing.assert_allclose(made.probabilities, [0, *(rarity / rarity.sum()), 0])

    def test_the_plantation_of_the_guide(self):
        # Shares of methods.md, section 2; what it says of T = 0.1 and of the paper's T = 0.01.
        shares = np.array([2945, 22, 1383, 287, 469, 4054, 840])[None]
        percent = 100 * RareClasses(shares, least=1).probabilities
        assert percent.tolist() == pytest.approx([0, 31, 8, 24, 20, 0.6, 14], abs=1.1)
        strict = RareClasses(shares, least=1, temperature=0.01).probabilities
        assert strict[1] == pytest.approx(0.92, abs=0.01)

    def test_a_tiny_temperature_does_not_overflow(self, rare):
        assert rare(temperature=1e-6).probabilities.tolist() == [0, 0, 0, 1, 0]

    def test_drawn_patches_have_enough_of_the_class(self, rare):
        made = rare(temperature=1.0)
        drawn = np.bincount(made.draw(60_000, np.random.default_rng(0)), minlength=LABELED)
        _, first, second, third, _ = made.probabilities
        expected = np.full(LABELED, first / 10)  # every patch has class 1
        expected[:4] += second / 4
        expected[2:4] += third / 2
        np.testing.assert_allclose(drawn / 60_000, expected, atol=0.005)

    def test_expected_pixels_are_those_that_are_drawn(self, rare):
        made = rare(temperature=0.5, share=0.25)
        drawn = made.counts[made.draw(40_000, np.random.default_rng(0))].mean(axis=0)
        expected = 2 * drawn + 6 * made.counts.mean(axis=0)
        np.testing.assert_allclose(made.pixels(8), expected, rtol=0.02)
        np.testing.assert_allclose(rare(share=0.0).pixels(8), 8 * made.counts.mean(axis=0))
        assert made.pixels(8)[3] > 8 * made.counts.mean(axis=0)[3]

    def test_least_is_how_many_pixels_a_patch_must_have(self, rare):
        made = rare(temperature=0.001, least=21)
        assert set(made.draw(100, np.random.default_rng(0))) == {2}

    @pytest.mark.parametrize(
        ("share", "batch", "places"),
        [
            (0.5, 8, [0, 2, 4, 6]),
            (0.5, 3, [0, 2]),
            (0.25, 8, [1, 5]),
            (0.0, 8, []),
            (1.0, 3, [0, 1, 2]),
        ],
    )
    def test_places(self, rare, share, batch, places):
        assert rare(share=share).places(batch) == places

    @pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
    @pytest.mark.parametrize("batch", [2, 5, 8, 16])
    def test_places_are_as_many_as_the_share_says(self, rare, share, batch):
        assert len(rare(share=share).places(batch)) == pytest.approx(share * batch, abs=0.5001)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"temperature": 0.0}, "temperature 0.0"),
            ({"least": 0}, "least 0"),
            ({"share": 1.5}, "share 1.5"),
            ({"least": 501}, "none of 10 labelled patches has 501 pixels"),
        ],
    )
    def test_bad_numbers_are_refused(self, rare, options, words):
        with pytest.raises(ValueError, match=words):
            rare(**options)

    def test_counts_of_another_pool_are_refused(self, stream):
        with pytest.raises(ValueError, match="counted in 4 patches, but the labeled pool has 10"):
            stream(rare=RareClasses(np.ones((4, 2), int), least=1))
        with pytest.raises(ValueError, match="counted in 4 patches"):
            stream().rare = RareClasses(np.ones((4, 2), int), least=1)


class TestStreamWithRareClasses:
    def test_drawn_patches_lie_in_their_places_and_the_others_walk_on(self, stream, rare):
        made = rare(temperature=0.001)  # class 3 alone: patches 2 and 3
        batches = [numbers(batch, "labeled") for batch in take(stream(batch_size=4, rare=made), 60)]
        assert {number for batch in batches for number in batch[::2]} == {2, 3}
        walked = [number for batch in batches for number in batch[1::2]]
        rounds = [walked[i : i + LABELED] for i in range(0, 120, LABELED)]
        assert all(sorted(one) == list(range(LABELED)) for one in rounds)

    def test_draws_are_a_function_of_seed_and_iteration(self, stream, rare):
        batches = take(stream(seed=5, batch_size=4, start=7, rare=rare()), 3)
        for iteration, batch in enumerate(batches, 7):
            expected = rare().draw(2, numpy_generator(5, "rare classes", iteration))
            assert numbers(batch, "labeled")[::2] == expected
        assert len({tuple(numbers(batch, "labeled")) for batch in batches}) == 3

    @pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
    @pytest.mark.parametrize("start", [0, 1, 3, 10, 23])
    def test_stream_may_start_anywhere(self, stream, rare, share, start):
        options = {"batch_size": 5, "rare": rare(share=share)}
        assert_same(
            take(stream(start=start, **options), 5), take(stream(**options), start + 5)[start:]
        )

    def test_workers_do_not_change_batches(self, stream, rare):
        assert_same(take(stream(rare=rare(), num_workers=2), 4), take(stream(rare=rare()), 4))

    def test_set_later_it_is_the_same(self, stream, rare):
        made = stream()
        made.rare = rare()
        assert_same(take(made, 4), take(stream(rare=rare()), 4))

    def test_unlabelled_batches_do_not_depend_on_it(self, stream, rare):
        for batch, other in zip(take(stream(rare=rare()), 8), take(stream(), 8), strict=True):
            assert torch.equal(batch["unlabeled"]["image"], other["unlabeled"]["image"])

    def test_without_it_or_with_a_share_of_none_everything_is_walked(self, stream, rare):
        plain = take(stream(), 8)
        assert_same(take(stream(rare=None), 8), plain)
        assert_same(take(stream(rare=rare(share=0.0)), 8), plain)
        # The first batches of the stream as it was before there were rare classes.
        seen = [number for batch in plain[:3] for number in numbers(batch, "labeled")]
        assert seen == [7, 3, 5, 6, 4, 8, 0, 1, 9]

    @pytest.mark.parametrize("count", [2, 4])
    def test_parts_of_the_ranks_make_the_batch_of_one_process(self, stream, rare, as_rank, count):
        whole = take(stream(batch_size=4, start=3, rare=rare()), 6)
        parts = []
        for number in range(count):
            as_rank(number, count)
            parts.append(take(stream(batch_size=4, start=3, rare=rare()), 6))
        for batch, *of_ranks in zip(whole, *parts, strict=True):
            for key, value in batch["labeled"].items():
                assert torch.equal(torch.cat([part["labeled"][key] for part in of_ranks]), value)

    def test_global_randomness_is_left_alone(self, stream, rare):
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
        take(stream(rare=rare()), 3)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert np.array_equal(np.random.get_state()[1], numpy_state)


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
            assert [set(batch) for batch in taken] == [{"image", "mask", "source"}] * 3
            seen = [batch["image"][:, 0, 0, 0].tolist() for batch in taken]
            assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            masks = torch.cat([batch["mask"][:, 3, 3] for batch in taken])
            assert masks.tolist() == [number % 3 for number in range(LABELED)]

    def test_every_patch_comes_with_its_source_image(self, tmp_path, classes, add_patch):
        for name in ("b_patch_000_000", "a_patch_000_000", "b_patch_000_001", "c_patch_000_000"):
            add_patch(tmp_path, name, np.zeros((16, 16), int))
        index = scan_patches(tmp_path, cache=False)
        chosen = PatchDataset(index, np.array([0, 1, 3]), MaskReader(classes))
        sources = [batch["source"] for batch in EvaluationBatches(chosen, batch_size=2)]
        names = [index.source_name(source) for source in torch.cat(sources).tolist()]
        assert names == [index.image_path(patch).stem[0] for patch in chosen.patches]
        assert sources[0].dtype == torch.int64

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
