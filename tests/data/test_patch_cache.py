"""What is kept, when it is trusted, and that it never changes an item."""

import dataclasses
import errno
import os
import pickle
import shutil
from collections import namedtuple

import numpy as np
import psutil
import pytest
import torch

from ignite_salak.classes import ClassMap
from ignite_salak.data import patch_cache
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import MaskReader
from ignite_salak.data.patch_cache import open_cache
from ignite_salak.data.patches import scan_patches

KINDS = ["ram", "disk"]
HEADER = 16
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def write(tmp_path, save):
    """Returns a function that writes patch ``number`` with random pixels, and its mask."""

    def patch(number, shape=(32, 32), *, masked=True, seed=None):
        rng = np.random.default_rng(number if seed is None else seed)
        name = f"p_patch_000_{number:03d}.png"
        image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        save(tmp_path / "data" / "images" / name, image)
        if masked:
            save(tmp_path / "data" / "masks" / name, rng.integers(0, 3, shape).astype(np.uint8))

    return patch


@pytest.fixture
def root(tmp_path, write):
    """Five patches: 0, 2 and 3 of 32 x 32 pixels with masks, 1 without, 4 of 24 x 16."""
    for number in range(5):
        write(number, (16, 24) if number == 4 else (32, 32), masked=number != 1)
    return tmp_path / "data"


@pytest.fixture
def reader(classes):
    return MaskReader(classes)


@pytest.fixture
def dataset(root, reader):
    """Returns a function that makes a data set of the masked patches with a cache."""

    def make(kind, patches=(0, 2, 3, 4), masks=True, input_size=None, **options):
        index = scan_patches(root, cache=False)
        return PatchDataset(
            index,
            np.array(patches),
            reader if masks else None,
            input_size=input_size,
            cache=open_cache(kind, index, reader, input_size=input_size),
            **options,
        )

    return make


@pytest.fixture
def decoded(monkeypatch):
    """The list of the patches that are decoded from here on."""
    numbers = []
    decode = PatchDataset._decode

    def counting(self, patch):
        numbers.append(patch)
        return decode(self, patch)

    monkeypatch.setattr(PatchDataset, "_decode", counting)
    return numbers


def read(patches):
    return [patches[position] for position in range(len(patches))]


def assert_equal(items, others):
    assert len(items) == len(others)
    for item, other in zip(items, others, strict=True):
        assert list(item) == list(other)
        for key, tensor in item.items():
            assert tensor.dtype == other[key].dtype == torch.uint8
            assert tensor.is_contiguous() and torch.equal(tensor, other[key])


def cache_file(private_cache, name="image"):
    return next(private_cache.glob(f"decoded-{name}s-*.bin"))


def test_none_is_no_cache(root, reader):
    assert open_cache("none", scan_patches(root, cache=False), reader) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input_size", [None, 16, 48])
def test_items_are_those_without_a_cache_at_every_reading(dataset, decoded, kind, input_size):
    plain = read(dataset("none", input_size=input_size))
    patches = dataset(kind, input_size=input_size)
    decoded.clear()
    assert_equal(read(patches), plain)
    assert decoded == [0, 2, 3, 4]
    decoded.clear()
    assert_equal(read(patches), plain)
    assert decoded == [4]  # of another shape


@pytest.mark.parametrize("kind", KINDS)
def test_items_may_be_changed_in_place(dataset, kind):
    patches = dataset(kind)
    plain = read(dataset("none"))
    for _ in range(2):
        for item in read(patches):
            item["image"].zero_()
            item["mask"].fill_(7)
    assert_equal(read(patches), plain)


def test_slots_are_header_and_pixels_by_number(dataset, private_cache):
    items = read(dataset("disk"))
    size = HEADER + 3 * 32 * 32
    images = cache_file(private_cache).read_bytes()
    assert len(images) == 4 * size  # patch 3 is the last that is kept
    assert images[size : 2 * size] == bytes(size)  # patch 1 was not read
    assert images[2 * size + HEADER : 3 * size] == items[1]["image"].numpy().tobytes()
    size = HEADER + 32 * 32
    masks = cache_file(private_cache, "mask").read_bytes()
    assert len(masks) == 3 * size  # patch 1 has no mask, so no slot
    assert masks[size + HEADER : 2 * size] == items[1]["mask"].numpy().tobytes()


def test_the_most_frequent_shape_is_kept_wherever_it_is(dataset, decoded, write):
    write(0, (16, 24))
    patches = dataset("ram")
    read(patches)
    decoded.clear()
    read(patches)
    assert decoded == [0, 4]


def test_images_of_either_pool_share_a_slot(dataset, decoded):
    masked = dataset("disk", patches=(0, 2))
    plain = read(masked)
    decoded.clear()
    assert_equal(read(dataset("disk", (0, 2), masks=False)), [{"image": i["image"]} for i in plain])
    assert decoded == [0, 1, 2, 3, 4]  # the samples that tell the shape, nothing else


def test_a_later_run_finds_what_is_on_disk(dataset, decoded):
    plain = read(dataset("disk"))
    patches = dataset("disk")
    decoded.clear()
    assert_equal(read(patches), plain)
    assert decoded == [4]


@pytest.mark.parametrize("change", ["input size", "colours", "mask format"])
def test_another_way_of_reading_has_files_of_its_own(root, classes, private_cache, change):
    index = scan_patches(root, cache=False)
    open_cache("disk", index, MaskReader(classes))
    other = ClassMap(classes.names, ((1, 1, 1), *classes.colors[1:]))
    reader = {
        "colours": MaskReader(other),
        "mask format": MaskReader(classes, "color"),
    }.get(change, MaskReader(classes))
    open_cache("disk", index, reader, input_size=16 if change == "input size" else None)
    assert len(list(private_cache.glob("decoded-masks-*"))) == 2
    images = len(list(private_cache.glob("decoded-images-*")))
    assert images == (2 if change == "input size" else 1)  # they do not depend on the classes


def test_a_cache_of_other_patches_is_refused(root, reader, classes):
    index = scan_patches(root, cache=False)
    cache = open_cache("ram", index, reader)
    for arguments, options in [
        ((scan_patches(root, cache=False), np.arange(2), reader), {}),
        ((index, np.arange(2), MaskReader(classes, "color")), {}),
        ((index, np.arange(2), reader), {"input_size": 32}),
    ]:
        with pytest.raises(ValueError, match="another index, mask reader or input size"):
            PatchDataset(*arguments, cache=cache, **options)
    PatchDataset(index, np.arange(2), MaskReader(classes), cache=cache)


class TestTrust:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_overwritten_in_place_is_read_anew(self, dataset, root, write, decoded, kind):
        patches = dataset(kind)
        read(patches)
        write(2, seed=100)
        path = root / "images" / "p_patch_000_002.png"
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        fresh = read(dataset("none"))
        decoded.clear()
        assert_equal(read(patches), fresh)
        assert decoded == [2, 4]
        assert_equal(read(patches), fresh)
        assert decoded == [2, 4, 4]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("change", ["size", "time"])
    def test_so_is_a_mask(self, dataset, root, save, decoded, kind, change):
        patches = dataset(kind)
        read(patches)
        path = root / "masks" / "p_patch_000_002.png"
        before = path.stat()
        if change == "size":
            save(path, np.zeros((32, 32), np.uint8))
            assert path.stat().st_size != before.st_size
        os.utime(path, ns=(0, before.st_mtime_ns + (change == "time")))
        decoded.clear()
        items = read(patches)
        assert decoded == [2, 4]
        assert items[1]["mask"].any() == (change == "time")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_mask_goes_with_its_image(self, dataset, root, save, kind):
        """Both are 32 x 32 after resizing, but the file of the new image is not."""
        patches = dataset(kind, patches=(0,), input_size=32)
        assert "bad_file" not in patches[0]
        save(root / "images" / "p_patch_000_000.png", np.zeros((64, 64, 3), np.uint8))
        assert "its size differs" in patches[0]["bad_file"]
        assert "its size differs" in patches[0]["bad_file"]

    def test_a_new_patch_moves_the_slots_and_spoils_nothing(self, dataset, write, private_cache):
        read(dataset("disk"))
        write(1)
        write(5)
        numbers = tuple(range(6))
        plain = read(dataset("none", numbers))
        for _ in range(2):
            assert_equal(read(dataset("disk", numbers)), plain)
        assert len(list(private_cache.iterdir())) == 2

    @pytest.mark.parametrize("at", [0, 5, HEADER - 1, HEADER, HEADER + 500])
    def test_a_wrong_byte_anywhere_is_noticed(self, dataset, private_cache, decoded, at):
        patches = dataset("disk")
        plain = read(patches)
        with cache_file(private_cache).open("r+b") as file:
            file.seek(2 * (HEADER + 3 * 32 * 32) + at)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        decoded.clear()
        assert_equal(read(patches), plain)
        assert decoded == [2, 4]
        assert_equal(read(patches), plain)
        assert decoded == [2, 4, 4]

    def test_a_write_cut_off_in_the_middle_is_noticed(self, dataset, decoded):
        patches = dataset("ram")
        plain = read(patches)
        patches.cache._slots["image"]._records[2, HEADER + 1000 :] = 0
        decoded.clear()
        assert_equal(read(patches), plain)
        assert decoded == [2, 4]

    def test_a_slot_of_another_patch_is_no_slot(self, dataset, root, save, decoded):
        """Equal pixels, sizes and times would not tell two patches of an archive apart."""
        for number in (0, 2):
            path = root / "images" / f"p_patch_000_{number:03d}.png"
            save(path, np.full((32, 32, 3), number + 1, np.uint8))
            os.utime(path, ns=(0, 10**18))
        patches = dataset("ram", masks=False)
        read(patches)
        records = patches.cache._slots["image"]._records
        records[2] = records[0]
        decoded.clear()
        assert (patches[1]["image"] == 3).all()
        assert decoded == [2]

    @pytest.mark.parametrize("content", [b"", b"no cache", bytes(range(256)) * 100])
    def test_a_foreign_or_short_file_is_written_over(self, dataset, private_cache, content):
        plain = read(dataset("disk"))
        for path in private_cache.iterdir():
            path.write_bytes(content)
        for _ in range(2):
            assert_equal(read(dataset("disk")), plain)

    @pytest.mark.skipif(os.name == "nt", reason="Windows does not delete open files")
    def test_a_file_deleted_by_another_process(self, dataset, private_cache):
        patches = dataset("disk")
        plain = read(patches)
        shutil.rmtree(private_cache)
        assert_equal(read(patches), plain)
        assert_equal(read(pickle.loads(pickle.dumps(patches))), plain)


class TestBadFiles:
    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_never_kept(self, dataset, root, write, kind):
        path = root / "masks" / "p_patch_000_002.png"
        path.write_bytes(b"")
        patches = dataset(kind, patches=(0, 2), skip_bad_files=True)
        for _ in range(2):
            item = patches[1]
            assert item["bad_file"] == f"{path}: the file is empty"
            assert torch.equal(item["image"], patches[0]["image"])
        write(2)
        assert_equal([patches[1]], [dataset("none")[1]])

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_deleted_since_is_one(self, dataset, root, kind):
        patches = dataset(kind)
        read(patches)
        (root / "images" / "p_patch_000_002.png").unlink()
        assert "does not exist" in patches[1]["bad_file"]

    def test_they_do_not_decide_the_shape(self, dataset, root, decoded):
        for number in (0, 1, 2):
            (root / "images" / f"p_patch_000_{number:03d}.png").write_bytes(b"")
        (root / "images" / "p_patch_000_004.png").write_bytes(b"")
        patches = dataset("ram", patches=(3,))
        read(patches)
        decoded.clear()
        read(patches)
        assert decoded == []

    def test_where_none_can_be_read_there_is_no_cache(self, root, reader, caplog):
        for path in (root / "images").iterdir():
            path.write_bytes(b"")
        assert open_cache("ram", scan_patches(root, cache=False), reader) is None
        assert "no sample patch can be read" in caplog.text


class TestRoom:
    """370,647 patches of 256 x 256 pixels, a mask for each: 16 + 196,608 and 16 + 65,536 bytes."""

    TOTAL = "97.2 GB for 370,647 patches of 256 x 256 pixels"

    @pytest.fixture
    def index(self, root):
        index = scan_patches(root, cache=False)
        text = np.full(370_647, "a.png")
        return dataclasses.replace(index, images=text, masks=text)

    @pytest.fixture(autouse=True)
    def shape(self, monkeypatch):
        monkeypatch.setattr(patch_cache, "_common_shape", lambda index, input_size: (256, 256))

    def refusal(self, kind, index, reader):
        with pytest.raises(ValueError) as caught:
            open_cache(kind, index, reader)
        return str(caught.value)

    def test_too_little_memory(self, index, reader, monkeypatch):
        memory = namedtuple("Memory", "available")(int(107e9))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        assert self.refusal("ram", index, reader) == (
            f"--cache ram needs {self.TOTAL}, but 107.0 GB of memory are free, a tenth of which "
            "must stay so: take --cache disk, --cache none, or a smaller --input-size"
        )

    def test_too_little_shared_memory(self, index, reader, monkeypatch):
        memory = namedtuple("Memory", "available")(int(999e9))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        monkeypatch.setattr(patch_cache.sys, "platform", "linux")
        monkeypatch.setattr(patch_cache, "_SHARED_MEMORY", index.root)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 67_108_864))
        text = self.refusal("ram", index, reader)
        assert f"but 67.1 MB of shared memory, {index.root}, are free" in text
        assert "--shm-size" in text and "--cache disk" in text

    def test_too_little_disk(self, index, reader, monkeypatch, private_cache):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(90e9)))
        text = self.refusal("disk", index, reader)
        assert text.startswith(f"--cache disk needs {self.TOTAL}, but 90.0 GB in {private_cache}")
        assert "IGNITE_SALAK_CACHE" in text and "--cache none" in text and "--input-size" in text

    def test_what_is_on_disk_already_needs_no_room(self, index, reader, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(90e9)))
        monkeypatch.setattr(patch_cache, "_occupied", lambda path: int(10e9))
        assert open_cache("disk", index, reader) is not None

    @pytest.mark.skipif(os.name == "nt", reason="sizes of sparse files are not told there")
    def test_a_file_grows_as_patches_are_read(self, index, reader, monkeypatch, private_cache):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, int(999e9)))
        cache = open_cache("disk", index, reader)
        assert cache_file(private_cache).stat().st_size == 0
        cache._slots["image"].write(370_646, bytearray(196_624))
        status = cache_file(private_cache).stat()
        assert status.st_size == 370_647 * 196_624
        assert patch_cache._occupied(cache_file(private_cache)) < 1_000_000


class TestFailures:
    def test_a_folder_that_cannot_be_made(self, dataset, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").write_bytes(b"")
        monkeypatch.setenv("IGNITE_SALAK_CACHE", str(tmp_path / "file" / "cache"))
        patches = dataset("disk")
        assert patches.cache is None
        assert_equal(read(patches), read(dataset("none")))
        assert caplog.text.count("--cache disk cannot be made") == 1

    def test_a_folder_in_the_place_of_the_file(self, dataset, private_cache, caplog):
        dataset("disk")
        path = cache_file(private_cache)
        path.unlink()
        path.mkdir()
        assert dataset("disk").cache is None
        assert "--cache disk cannot be made" in caplog.text

    def test_memory_that_cannot_be_had(self, dataset, monkeypatch, caplog):
        def refuse(size):
            raise RuntimeError("unable to allocate shared memory")

        monkeypatch.setattr(torch.UntypedStorage, "_new_shared", refuse)
        assert dataset("ram").cache is None
        assert "unable to allocate shared memory" in caplog.text

    def test_a_full_disk_is_one_warning_and_what_is_there_stays(
        self, dataset, decoded, monkeypatch, caplog
    ):
        patches = dataset("disk", masks=False)
        plain = read(dataset("none", masks=False))
        patches[0]

        class Full(patch_cache.io.FileIO):
            def write(self, content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(patch_cache.io, "FileIO", Full)
        patches = pickle.loads(pickle.dumps(patches))
        for _ in range(2):
            decoded.clear()
            assert_equal(read(patches), plain)
            assert decoded == [2, 3, 4]
        assert caplog.text.count("no more patches are kept") == 1

    def test_a_file_that_cannot_be_read(self, dataset, decoded, monkeypatch):
        patches = dataset("disk")
        plain = read(patches)

        class Broken(patch_cache.io.FileIO):
            def readinto(self, buffer):
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(patch_cache.io, "FileIO", Broken)
        assert_equal(read(pickle.loads(pickle.dumps(patches))), plain)


class TestProcesses:
    """A worker fills the cache: the parent, which decoded nothing, finds all in it."""

    def test_spawned_workers_share_it(self, dataset, decoded):
        pools = [dataset(kind) for kind in KINDS]
        plain = read(dataset("none"))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.ConcatDataset(pools),
            batch_size=None,
            num_workers=1,
            multiprocessing_context="spawn",
        )
        decoded.clear()
        assert_equal(list(loader), plain + plain)
        assert decoded == []
        for patches in pools:
            assert_equal(read(patches), plain)
        assert decoded == [4, 4]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_a_forked_process_has_a_file_of_its_own(self, dataset, monkeypatch):
        patches = dataset("disk")
        patches[0]
        slots = patches.cache._slots["image"]
        file = slots._open()
        assert slots._open() is file
        monkeypatch.setattr(os, "getpid", lambda: 0)
        assert slots._open() is not file

    def test_two_runs_write_the_same_slots(self, dataset, decoded):
        first, second = dataset("disk"), dataset("disk")
        plain = read(dataset("none"))
        assert_equal(read(first), plain)
        decoded.clear()
        assert_equal(read(second), plain)
        assert decoded == [4]
