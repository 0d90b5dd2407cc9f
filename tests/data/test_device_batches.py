"""Batches on the device: the order of copies and of what waits for them."""

import contextlib
import itertools

import numpy as np
import pytest
import torch

from ignite_salak.data import device_batches
from ignite_salak.data.datasets import PatchDataset
from ignite_salak.data.decoding import BadFileError
from ignite_salak.data.device_batches import DeviceBatches
from ignite_salak.data.loaders import TrainingStream
from ignite_salak.data.patches import scan_patches


class Source:
    """Batches start + 1, start + 2, ...; tells when each is read, and may fail."""

    def __init__(self, log, length=3, fails_at=None):
        self.log = log
        self.length = length
        self.fails_at = fails_at
        self.start = 0

    def __len__(self):
        return self.length

    def __iter__(self):
        for number in range(self.start + 1, self.start + self.length + 1):
            if number == self.fails_at:
                raise BadFileError(f"batch {number}")
            self.log.append(f"read {number}")
            yield {"labeled": {"image": torch.full((2,), number)}, "names": ["a"], "number": number}


@pytest.fixture
def log(monkeypatch):
    """Stands in for the side stream, and lists what it is asked to do."""
    calls = []

    class SideStream:
        def __init__(self, device):
            assert device.type == "cuda"

        def copy(self, batch):
            calls.append(f"copy {batch['number']}")
            return batch, f"event {batch['number']}"

        def hand_over(self, batch, copied):
            assert copied == f"event {batch['number']}"
            calls.append(f"hand over {batch['number']}")

    monkeypatch.setattr(device_batches, "_SideStream", SideStream)
    return calls


def test_on_the_cpu_batches_pass_untouched_and_none_is_read_ahead():
    calls = []
    source = [{"image": torch.zeros(2)}, {"image": torch.ones(2)}]

    def read():
        for number, batch in enumerate(source):
            calls.append(f"read {number}")
            yield batch

    for number, batch in enumerate(DeviceBatches(read(), "cpu")):
        assert batch is source[number]
        calls.append(f"step {number}")
    assert calls == ["read 0", "step 0", "read 1", "step 1"]


def test_the_next_batch_is_copied_before_the_present_one_is_computed_on(log):
    for batch in DeviceBatches(Source(log), "cuda:0"):
        log.append(f"step {batch['number']}")
    assert log == [
        *("read 1", "copy 1", "read 2", "copy 2", "hand over 1", "step 1"),
        *("read 3", "copy 3", "hand over 2", "step 2"),
        *("hand over 3", "step 3"),
    ]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_error_of_the_source_comes_at_its_batch(log, device, fails_at):
    seen = []
    with pytest.raises(BadFileError, match=f"batch {fails_at}"):
        for batch in DeviceBatches(Source(log, fails_at=fails_at), device):
            seen.append(batch["number"])
    assert seen == list(range(1, fails_at))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_pass_iterates_the_source_anew_from_its_start(log, device):
    source = Source(log)
    batches = DeviceBatches(source, device)
    assert [batch["number"] for batch in batches] == [1, 2, 3]
    source.start = 7
    assert [batch["number"] for batch in batches] == [8, 9, 10]
    assert [batch["number"] for batch in DeviceBatches(Source(log, length=0), device)] == []
    assert [batch["number"] for batch in DeviceBatches(Source(log, length=1), device)] == [1]


def test_an_endless_source_can_be_left_and_is_closed(log):
    closed = []

    def endless():
        try:
            yield from Source(log, length=10**9)
        finally:
            closed.append(True)

    iterator = iter(DeviceBatches(endless(), "cuda"))
    assert next(iterator)["number"] == 1
    iterator.close()
    assert closed == [True]


def test_length_is_that_of_the_source_where_it_has_one():
    assert len(DeviceBatches(Source([]), "cpu")) == 3
    with pytest.raises(TypeError, match="generator has no len"):
        len(DeviceBatches((batch for batch in ()), "cpu"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_training_stream_starts_where_it_was_told_to(plantation, log, monkeypatch, device):
    monkeypatch.setattr(device_batches._SideStream, "copy", lambda self, batch: (batch, None))
    monkeypatch.setattr(device_batches._SideStream, "hand_over", lambda *arguments: None)
    pool = PatchDataset(scan_patches(plantation.root, cache=False), np.arange(12))
    stream = TrainingStream(pool, None, batch_size=2, seed=0)
    *_, expected = itertools.islice(stream, 4)
    batches = DeviceBatches(stream, device)
    stream.start = 3
    assert torch.equal(next(iter(batches))["labeled"]["image"], expected["labeled"]["image"])


@pytest.fixture
def fake_cuda(monkeypatch):
    """Streams and events that list what they are asked to do; tensors stay on the CPU."""
    calls = []

    class Stream:
        def __init__(self, device=None, name="side"):
            self.name = name

        def record_event(self):
            calls.append(f"{self.name} records")
            return f"event of {self.name}"

        def wait_event(self, event):
            calls.append(f"{self.name} waits for {event}")

    @contextlib.contextmanager
    def within(stream):
        calls.append(f"enter {stream.name}")
        yield
        calls.append(f"leave {stream.name}")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(name="main"))
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda self, stream: calls.append(f"{int(self)} is read by {stream.name}"),
    )
    to = torch.Tensor.to

    def spy(self, device, non_blocking=False):
        calls.append(f"copy {int(self)}" if non_blocking else "a copy that waits")
        return to(self, device)

    monkeypatch.setattr(torch.Tensor, "to", spy)
    return calls


def test_copies_are_made_on_the_side_and_kept_until_they_were_read(fake_cuda):
    side = device_batches._SideStream(torch.device("cpu"))
    batch = {"labeled": {"image": torch.tensor(1), "mask": torch.tensor(2)}, "names": ["a"]}
    moved, copied = side.copy(batch)
    assert fake_cuda == ["enter side", "copy 1", "copy 2", "side records", "leave side"]
    fake_cuda.clear()
    side.hand_over(moved, copied)
    assert fake_cuda == [
        "main waits for event of side",
        "1 is read by main",
        "2 is read by main",
    ]
    assert moved["names"] is batch["names"]
    assert list(moved) == list(batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_batches_arrive_whole_and_the_host_waits_for_nothing():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 8, 3, 256, 256), generator=generator, dtype=torch.uint8)
    pinned = [{"labeled": {"image": image.pin_memory()}, "names": ["a"]} for image in images]
    busy = torch.randn(2048, 2048, device="cuda")
    sums = []
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in DeviceBatches(pinned, "cuda"):
            for _ in range(5):
                busy = (busy @ busy).clamp(-1, 1)
            assert batch["names"] == ["a"]
            assert batch["labeled"]["image"].device.type == "cuda"
            sums.append(batch["labeled"]["image"].long().sum())
            del batch  # its memory may be used again
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(sums).tolist() == images.long().sum(dim=(1, 2, 3, 4)).tolist()
