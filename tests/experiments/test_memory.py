"""Advice where memory runs out, and the learning rate of another batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from experiments import memory
from experiments.console import run_script
from experiments.memory import (
    MemorySettings,
    OutOfMemory,
    Shortage,
    advice,
    memory_advice,
    read_shortage,
    remedies,
)
from experiments.train_v3 import Options
from ignite_salak.engines import create_trainer
from ignite_salak.handlers import Evaluation

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
GPU_TEXT = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 16.00 GiB of "
    "which 1.25 GiB is free. Including non-PyTorch memory, this process has 14.50 GiB memory in "
    "use. Of the allocated memory 9.08 GiB is allocated by PyTorch, and 4.84 GiB is reserved by "
    "PyTorch but unallocated."
)
CROWDED_TEXT = (
    "CUDA out of memory. Tried to allocate 1.95 GiB. GPU 0 has a total capacity of 14.57 GiB of "
    "which 1.58 GiB is free. Process 2493055 has 12.02 GiB memory in use. Including non-PyTorch "
    "memory, this process has 966.00 MiB memory in use."
)
LINUX_TEXT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
)
WINDOWS_TEXT = (
    "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried "
    "to allocate 1610612736 bytes."
)
NUMPY_TEXT = (
    "Caught _ArrayMemoryError in DataLoader worker process 0.\nOriginal Traceback ...\n"
    "Unable to allocate 3.00 GiB for an array with shape (3221225472,) and data type uint8"
)
WORKER_TEXT = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback ..."

GUIDE = MemorySettings(
    batch_size=8,
    learning_rate=2.5e-4,
    optimizer="sgd",
    scales=(256, 384),
    output_stride=8,
    precision="fp32",
    backbone="resnet101",
    bf16_supported=True,
    num_workers=4,
    cache="ram",
)
SMALLEST = MemorySettings(
    batch_size=2,
    learning_rate=2.5e-4,
    optimizer="sgd",
    scales=(256, 256),
    output_stride=16,
    precision="bf16",
    backbone="resnet18",
)


def flags(settings, phase="training", **where):
    """What is offered, by flag."""
    return {text.split()[0]: text for text in remedies(settings, phase, **where)}


def failing(error):
    """An engine whose every iteration raises."""

    def step(engine, batch):
        raise error

    return Engine(step)


@pytest.fixture
def _no_device(monkeypatch):
    monkeypatch.setattr(memory, "_gpu_memory", lambda device: (None, None, None))


@pytest.fixture
def _host(monkeypatch):
    monkeypatch.setattr(memory, "_host_memory", lambda: (8 * GIB, GIB // 2))


def test_all_remedies_mildest_first():
    assert remedies(GUIDE, "training") == [
        "--grad-accumulation 1 -> 2",
        "--scale-max 384 -> 320",
        "--batch-size 8 -> 4 with --learning-rate 0.00025 -> 0.000125",
        "--output-stride 8 -> 16",
        "--precision fp32 -> bf16",
        "--backbone resnet101 -> resnet50",
    ]
    assert remedies(SMALLEST, "training") == []


@pytest.mark.parametrize(
    ("batch", "now", "ranks", "expected"),
    [
        (8, 1, 1, "1 -> 2"),
        (8, 2, 1, "2 -> 4"),
        (8, 4, 1, None),  # parts of one patch
        (9, 1, 1, "1 -> 3"),
        (12, 3, 1, "3 -> 4"),
        (7, 1, 1, None),
        (3, 1, 1, None),
        (2, 1, 1, None),
        (16, 1, 2, "1 -> 2"),
        (8, 2, 2, None),  # a rank has 4 patches: already in parts of 2
        (12, 2, 2, "2 -> 3"),  # a rank has 6 patches
    ],
)
def test_parts_are_equal_and_of_two_patches_at_least(batch, now, ranks, expected):
    settings = replace(GUIDE, batch_size=batch, grad_accumulation=now, ranks=ranks)
    found = flags(settings).get("--grad-accumulation")
    assert found == (expected and f"--grad-accumulation {expected}")


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ((256, 384), "384 -> 320"),
        ((256, 320), "320 -> 256"),
        ((256, 272), "272 -> 256"),
        ((300, 320), "320 -> 304"),
        ((256, 270), "270 -> 256"),
        ((256, 256), None),
        ((250, 250), None),
        ((250, 255), None),
        ((32, 48), "48 -> 32"),
    ],
)
def test_views_stay_multiples_of_16_and_over_the_smallest(scales, expected):
    found = flags(replace(GUIDE, scales=scales)).get("--scale-max")
    assert found == (expected and f"--scale-max {expected}")


@pytest.mark.parametrize(
    ("batch", "parts", "ranks", "optimizer", "expected"),
    [
        (8, 1, 1, "adamw", "8 -> 4 with --learning-rate 0.00025 -> 0.000177"),
        (3, 1, 1, "sgd", "3 -> 2 with --learning-rate 0.00025 -> 0.000167"),
        (8, 2, 1, "sgd", "8 -> 4 with --learning-rate 0.00025 -> 0.000125"),
        (24, 2, 2, "sgd", "24 -> 12 with --learning-rate 0.00025 -> 0.000125"),
        (20, 2, 2, "sgd", "20 -> 8 with --learning-rate 0.00025 -> 0.0001"),
        (2, 1, 1, "sgd", None),
        (8, 4, 1, "sgd", None),
        (8, 1, 4, "sgd", None),
    ],
)
def test_a_smaller_batch_brings_its_learning_rate(batch, parts, ranks, optimizer, expected):
    settings = replace(
        GUIDE, batch_size=batch, grad_accumulation=parts, ranks=ranks, optimizer=optimizer
    )
    assert flags(settings).get("--batch-size") == (expected and f"--batch-size {expected}")


def test_stride_precision_and_backbone_only_where_they_can_be_lowered():
    assert "--output-stride" not in flags(replace(GUIDE, output_stride=16))
    assert "--precision" not in flags(replace(GUIDE, bf16_supported=False))
    assert "--precision" not in flags(replace(GUIDE, precision="bf16"))
    assert "--backbone" not in flags(replace(GUIDE, backbone="timm/regnety_002"))
    assert flags(replace(GUIDE, backbone="resnet50"))["--backbone"].endswith("resnet50 -> resnet18")


def test_evaluation_building_and_reading_have_their_own_remedies():
    everywhere = ["--batch-size", "--output-stride", "--precision", "--backbone"]
    assert list(flags(GUIDE, "evaluation")) == everywhere
    assert list(flags(GUIDE, "building")) == ["--backbone"]
    assert remedies(GUIDE, "loading", on_host=True) == [
        "--num-workers 4 -> 2",
        "--cache ram -> disk",
    ]
    assert list(flags(GUIDE, "training", on_host=True))[:3] == [
        "--num-workers",
        "--cache",
        "--grad-accumulation",
    ]
    assert remedies(replace(GUIDE, num_workers=0, cache="disk"), "loading", on_host=True) == []


@pytest.mark.usefixtures("_no_device")
def test_numbers_of_a_gpu_come_from_the_error():
    found = read_shortage(torch.OutOfMemoryError(GPU_TEXT), CUDA)
    assert found == Shortage("cuda:0", 5 * GIB // 2, 16 * GIB, 5 * GIB // 4, 29 * GIB // 2)
    assert found.held_by_others == 0  # 0.25 GiB
    assert not found.on_host


def test_numbers_that_the_error_lacks_come_from_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    found = read_shortage(RuntimeError("CUDA error: out of memory"), CUDA)
    assert found == Shortage("cuda:0", None, 16 * GIB, GIB, 3 * GIB)
    assert found.held_by_others == 12 * GIB


def test_a_device_that_does_not_answer_leaves_the_numbers_out(monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    found = read_shortage(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), CUDA)
    assert found == Shortage("cuda:0")
    text = advice(GUIDE, found, "training", 7)
    assert text.startswith("out of memory on cuda:0 at iteration 7. Use the first")


@pytest.mark.usefixtures("_host")
@pytest.mark.parametrize(
    ("error", "device", "asked"),
    [
        (RuntimeError(LINUX_TEXT), CPU, 4 * GIB),
        (RuntimeError(WINDOWS_TEXT), CPU, 3 * GIB // 2),
        (RuntimeError(LINUX_TEXT), CUDA, 4 * GIB),
        (MemoryError(), CUDA, None),
        (MemoryError(WORKER_TEXT), CPU, None),
        (RuntimeError(NUMPY_TEXT), CUDA, 3 * GIB),
        (RuntimeError("std::bad_alloc"), CUDA, None),
        (RuntimeError("could not create a primitive"), CPU, None),
    ],
)
def test_main_memory(error, device, asked):
    found = read_shortage(error, device)
    assert found == Shortage("main memory", asked, 8 * GIB, GIB // 2)
    assert found.on_host
    assert found.held_by_others == 0


def test_real_errors_of_torch_numpy_and_python_are_known():
    calls = {
        "torch": lambda: torch.empty(10**15),
        "numpy": lambda: np.empty(10**15),
        "python": lambda: bytearray(10**15),
    }
    asked = {}
    for name, call in calls.items():
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            call()
        asked[name] = read_shortage(caught.value, CPU).asked
    assert asked["torch"] == 4 * 10**15
    assert asked["numpy"] == pytest.approx(8e15, rel=0.01)
    assert asked["python"] is None


def test_the_whole_text():
    shortage = Shortage("cuda:0", 5 * GIB // 2, 16 * GIB, 0, 16 * GIB)
    assert advice(replace(GUIDE, batch_size=4), shortage, "training", 501) == (
        "out of memory on cuda:0 at iteration 501: 2.5 GiB were asked for, 0 bytes of 16 GiB are "
        "free. Use the first of these that is enough: --grad-accumulation 1 -> 2; "
        "--scale-max 384 -> 320; --batch-size 4 -> 2 with --learning-rate 0.00025 -> 0.000125; "
        "--output-stride 8 -> 16; --precision fp32 -> bf16; --backbone resnet101 -> resnet50"
    )
    assert advice(SMALLEST, Shortage("main memory"), "building") == (
        "out of main memory before the first iteration. "
        "No option is left to lower: it takes a device with more memory"
    )


@pytest.mark.usefixtures("_no_device")
def test_other_processes_on_the_gpu_are_named():
    crowded = read_shortage(torch.OutOfMemoryError(CROWDED_TEXT), CUDA)
    text = advice(GUIDE, crowded, "training", 1)  # 14.57 - 1.58 - 966 / 1024 = 12.0466
    assert "Other processes hold 12.05 GiB of it: end them (nvidia-smi lists them), or" in text
    alone = read_shortage(torch.OutOfMemoryError(GPU_TEXT), CUDA)
    assert "Other processes" not in advice(GUIDE, alone, "training", 1)


@pytest.mark.usefixtures("_no_device")
def test_a_step_that_runs_out_of_memory_names_its_iteration():
    error = torch.OutOfMemoryError(GPU_TEXT)
    trainer = failing(error)
    with (
        pytest.raises(OutOfMemory, match=r"cuda:0 at iteration 1: 2\.5 GiB .*accumulation") as seen,
        memory_advice(GUIDE, CUDA, trainer),
    ):
        trainer.run([0, 1, 2])
    assert seen.value.__cause__ is error


@pytest.mark.usefixtures("_no_device")
def test_an_evaluation_that_runs_out_of_memory_says_so():
    trainer = create_trainer(lambda engine, batch: {}, seed=0)
    evaluator = failing(torch.OutOfMemoryError(GPU_TEXT))
    Evaluation(evaluator, None, [0], [0], every=2).attach(trainer)
    with (
        pytest.raises(OutOfMemory, match=r"at iteration 2, evaluating: 2\.5 GiB") as seen,
        memory_advice(GUIDE, CUDA, trainer),
    ):
        trainer.run([0, 1, 2])
    assert "--scale-max" not in str(seen.value)


@pytest.mark.usefixtures("_no_device")
def test_building_is_before_the_first_iteration():
    with (
        pytest.raises(OutOfMemory, match=r"before the first iteration: .*backbone resnet101 ->"),
        memory_advice(GUIDE, CUDA),
    ):
        raise torch.OutOfMemoryError(GPU_TEXT)


@pytest.mark.usefixtures("_host")
def test_reading_is_told_from_training():
    with (
        pytest.raises(
            OutOfMemory, match=r"main memory .*reading patches: 512 MiB of 8 GiB"
        ) as seen,
        memory_advice(GUIDE, CPU),
    ):
        raise MemoryError(WORKER_TEXT)
    assert "--num-workers 4 -> 2" in str(seen.value)
    assert "--backbone" not in str(seen.value)
    trainer = failing(RuntimeError(LINUX_TEXT))
    with (
        pytest.raises(OutOfMemory, match=r"iteration 1: 4 GiB were .*-workers .*-accumulation"),
        memory_advice(GUIDE, CPU, trainer),
    ):
        trainer.run([0])


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as seen, memory_advice(GUIDE, CPU):
        raise error
    assert seen.value is error


def test_a_script_ends_with_one_line_and_status_2(capsys):
    def script(arguments):
        with memory_advice(GUIDE, CPU):
            torch.empty(10**15)

    assert run_script(script, []) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: out of main memory before the first iteration")


def test_settings_of_a_script(monkeypatch):
    monkeypatch.setattr(memory, "rank_count", lambda: 3)
    options = Options()
    options.data.cache = "ram"
    options.schedule.grad_accumulation = 2
    options.model.output_stride = 8
    options.run.num_workers = 3
    options.schedule.batch_size = 12
    assert MemorySettings.of(options, CPU) == MemorySettings(
        batch_size=12,
        learning_rate=2.5e-4,
        optimizer="sgd",
        scales=(256, 384),
        output_stride=8,
        precision="fp32",
        backbone="resnet50",
        grad_accumulation=2,
        ranks=3,
        num_workers=3,
        cache="ram",
    )
