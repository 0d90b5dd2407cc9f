"""Advice where memory runs out."""

from dataclasses import replace

import pytest
import torch
from ignite.engine import Engine

from experiments.console import run_script
from experiments.memory import OutOfMemory, advice, memory_advice
from experiments.shortage import Shortage, read_shortage
from ignite_salak.engines import create_trainer
from ignite_salak.handlers import Evaluation
from tests.experiments.memory_errors import (
    CPU,
    CROWDED_TEXT,
    CUDA,
    GIB,
    GPU_TEXT,
    GUIDE,
    LINUX_TEXT,
    SMALLEST,
    WORKER_TEXT,
)


def failing(error):
    """An engine whose every iteration raises."""

    def step(engine, batch):
        raise error

    return Engine(step)


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


def test_a_device_that_does_not_answer_leaves_the_numbers_out(monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    found = read_shortage(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), CUDA)
    assert found == Shortage("cuda:0")
    text = advice(GUIDE, found, "training", 7)
    assert text.startswith("out of memory on cuda:0 at iteration 7. Use the first")


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
