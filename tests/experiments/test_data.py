"""From options to batches."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data import load_data
from experiments.options import DataOptions, RunOptions
from ignite_salak.data.listings import write_list

CPU = torch.device("cpu")


def load(plantation, batch_size=4, seed=0, **options):
    return load_data(
        DataOptions(data_root=plantation.root, **options),
        RunOptions(num_workers=0, seed=seed),
        batch_size=batch_size,
        device=CPU,
    )


def test_batches_and_weights(shared_plantation):
    data = load(shared_plantation)
    batch = next(iter(data.stream))
    assert batch["labeled"]["image"].shape == (4, 3, 32, 32)
    assert batch["labeled"]["mask"].shape == (4, 32, 32)
    assert set(batch["unlabeled"]) == {"image"}
    assert data.class_weights.shape == (7,)
    assert data.class_weights[1] > data.class_weights[5]


def test_input_size_reads_at_half_resolution(shared_plantation):
    data = load(shared_plantation, input_size=16)
    assert next(iter(data.stream))["labeled"]["image"].shape[-2:] == (16, 16)
    assert next(iter(data.validation))["mask"].shape[-2:] == (16, 16)


def test_one_labelled_patch_stands_for_its_photo(shared_plantation, tmp_path):
    whole = load(shared_plantation)
    np.testing.assert_array_equal(whole.estimated_pixels, whole.labeled_pixels.sum(axis=0))
    [first, other] = whole.split.sources(whole.index)["labelled"][:2]
    named = [whole.index.patch_name(patch) for patch in whole.split.labeled.tolist()]
    of_first = [name for name in named if name.startswith(f"{first}_patch")]
    listing = tmp_path / "list.txt"
    listing.write_text(f"{of_first[0]}\n{other}\n", encoding="utf-8")
    data = load(
        shared_plantation, labeled_files=listing, val_files=_validation_list(whole, tmp_path)
    )
    single = data.labeled_pixels[0]
    expected = data.labeled_pixels[1:].sum(axis=0) + len(of_first) * single
    assert len(of_first) > 1 and single.any()
    np.testing.assert_array_equal(data.estimated_pixels, expected)


def _validation_list(data, folder):
    write_list(folder / "val.txt", data.split.sources(data.index)["validation"])
    return folder / "val.txt"


def test_nothing_unlabelled_is_supervised_training_with_a_warning(plantation, caplog):
    for folder in ("salak-1-3", "salak-1-4"):
        shutil.rmtree(plantation.root / folder)
    data = load(plantation)
    assert set(next(iter(data.stream))) == {"labeled"}
    assert "supervised only" in caplog.text


def test_the_same_seed_gives_the_same_split_and_another_another(shared_plantation):
    digests = [
        load(shared_plantation, seed=seed, val_split=0.4).split.digest(
            load(shared_plantation).index
        )
        for seed in (0, 0, 1, 2, 3)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) > 1


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_the_training_sample_is_as_large_as_validation(shared_plantation, fraction):
    data = load(shared_plantation, val_split=fraction)
    count = sum(len(batch["image"]) for batch in data.validation)
    sample = sum(len(batch["image"]) for batch in data.training)
    assert sample == min(count, len(data.split.labeled))


def test_many_ignored_pixels_are_a_warning(plantation, caplog):
    # Black and white masks in one channel: 255 means ignore, not white.
    for path in plantation.root.glob("salak-*/masks/*.png"):
        pixels = np.zeros((32, 32), dtype=np.uint8)
        pixels[:, 16:] = 255
        Image.fromarray(pixels).save(path)
    load(plantation)
    assert "50 % of the labelled training pixels are ignored" in caplog.text


def load_panels(plantation, panels):
    return load_some(plantation, panels=panels)


def load_some(plantation, **options):
    where = DataOptions(data_root=plantation.root)
    return load_data(where, RunOptions(num_workers=0), batch_size=4, device=CPU, **options)


def test_panels_are_fixed_patches_of_the_two_pools_with_their_names(shared_plantation):
    data = load_panels(shared_plantation, 3)
    pools = {
        "panel_validation": (data.split.validation, {"image", "mask"}),
        "panel_unlabeled": (data.split.unlabeled, {"image"}),
    }
    again = load_panels(shared_plantation, 3)
    for name, (pool, keys) in pools.items():
        gallery = getattr(data, name)
        assert gallery.names == getattr(again, name).names
        assert len(set(gallery.names)) == len(gallery.patches)
        assert len(gallery.read()) == 3
        for position, shown in enumerate(gallery.names):
            patch = gallery.patches.patches[position]
            assert patch in pool
            assert data.index.image_path(patch).stem == shown.rpartition("/")[2]
            assert shown.startswith(data.index.folders[data.index.folder_ids[patch]] + "/")
            assert set(gallery.patches[position]) == keys


def test_panels_do_not_change_the_batches(shared_plantation):
    for name in ("labeled", "unlabeled"):
        first, second = (
            next(iter(load_panels(shared_plantation, count).stream))[name]["image"]
            for count in (0, 4)
        )
        assert torch.equal(first, second)


def test_no_panels_unless_asked_for_or_where_a_pool_is_empty(plantation):
    data = load(plantation)
    assert (data.panel_validation, data.panel_unlabeled) == (None, None)
    for folder in ("salak-1-3", "salak-1-4"):
        shutil.rmtree(plantation.root / folder)
    data = load_panels(plantation, 2)
    assert len(data.panel_validation.names) == 2
    assert data.panel_unlabeled is None


def test_no_unlabelled_patch_is_read_where_none_is_wanted(plantation, caplog):
    for folder in ("salak-1-3", "salak-1-4"):
        for path in (plantation.root / folder / "images").iterdir():
            path.write_bytes(b"")
    where, run = DataOptions(data_root=plantation.root), RunOptions(num_workers=0)
    options = {"batch_size": 4, "device": CPU, "panels": 2}
    data = load_data(where, run, unlabeled=False, **options)
    both = load_data(where, run, **options)
    assert set(data.stream.pools) == {"labeled"}
    assert data.panel_unlabeled is None
    assert len(data.split.unlabeled) == len(both.split.unlabeled) > 0
    assert next(iter(data.stream))["labeled"]["image"].shape == (4, 3, 32, 32)
    assert "supervised only" not in caplog.text


@pytest.mark.parametrize(("option", "flag"), [("panels", "--panels"), ("watch", "--watch-patches")])
def test_a_negative_number_is_refused(shared_plantation, option, flag):
    with pytest.raises(ValueError, match=f"{flag} -1 is negative"):
        load_some(shared_plantation, **{option: -1})


def test_watched_patches_are_unlabelled_of_many_source_images_and_without_masks(shared_plantation):
    data = load_some(shared_plantation, watch=6)
    unlabeled = data.index.source_ids[data.split.unlabeled]
    batches = list(data.watched)
    assert not any("mask" in batch for batch in batches)
    sources = torch.cat([batch["source"] for batch in batches]).tolist()
    assert len(sources) == 6 and set(sources) <= set(unlabeled.tolist())
    assert len(set(sources)) == min(6, len(set(unlabeled.tolist())))


def test_bad_files_are_not_watched_where_they_are_skipped(plantation):
    for path in (plantation.root / "salak-1-4" / "images").iterdir():
        path.write_bytes(b"")
    options = DataOptions(data_root=plantation.root, skip_bad_files=True)
    run = RunOptions(num_workers=0)
    data = load_data(options, run, batch_size=4, device=CPU, watch=10**6)
    watched = torch.cat([batch["source"] for batch in data.watched]).tolist()
    names = {data.index.source_name(source).split("/")[0] for source in watched}
    assert names == {"salak-1-3"}


@pytest.mark.parametrize("options", [{}, {"watch": 6, "unlabeled": False}])
def test_nothing_is_watched_unless_asked_for_and_read(shared_plantation, options):
    assert load_some(shared_plantation, **options).watched is None
