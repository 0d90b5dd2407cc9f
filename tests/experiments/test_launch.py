"""Runs of several processes: started by torchrun or SLURM, killed, continued by another number."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from experiments.launch import join_ranks, rank_is_lost

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
SCRIPT = "experiments.train_v3"


@pytest.fixture
def flags(shared_plantation, tiny_flags):
    changed = ("--batch-size", "--learning-rate", "--optimizer", "--num-steps", "--eval-every")
    kept = [flag for flag in tiny_flags if not flag.startswith(changed)]
    return [
        *kept,
        *(f"--data-root={shared_plantation.root}", "--num-steps=12", "--eval-every=6"),
        *("--batch-size=4", "--optimizer=sgd", "--learning-rate=0.01", "--log-every=1"),
    ]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(*arguments):
    return [*TORCHRUN, f"--master-port={free_port()}", "-m", SCRIPT, *arguments]


def losses(folder):
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["iteration"]): float(row["loss"]) for row in csv.DictReader(file)}


def watched(folder):
    with (folder / "source_classes.csv").open(encoding="utf-8", newline="") as file:
        return [(row["iteration"], row["source"]) for row in csv.DictReader(file)]


def run(command, **options):
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, **options
    )


class TestJoining:
    @pytest.fixture(autouse=True)
    def nobody_joins(self, monkeypatch):
        for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "LOCAL_RANK", "SLURM_LOCALID"):
            monkeypatch.delenv(name, raising=False)
        self.joined = []
        monkeypatch.setattr(
            "experiments.launch.idist.initialize", lambda *a, **k: self.joined.append(a)
        )

    @pytest.mark.parametrize("device", ["auto", "cpu", "cuda:1"])
    def test_one_process_stays_alone(self, device, monkeypatch):
        assert join_ranks(device) == device
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setenv("SLURM_NTASKS", "4")  # of the job, not of a step
        assert join_ranks(device) == device
        assert not self.joined

    @pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
    def test_cpus_join_by_gloo(self, name, monkeypatch):
        monkeypatch.setenv(name, "2")
        assert join_ranks("cpu") == "cpu"
        assert self.joined == [("gloo",)]

    def test_gpus_join_by_nccl_one_each(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        assert join_ranks("auto") == "cuda:1"
        assert self.joined == [("nccl",)]

    def test_a_numbered_device_is_refused(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match="--device cuda:1 with several processes"):
            join_ranks("cuda:1")

    def test_more_processes_than_gpus_are_refused(self, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "4")
        monkeypatch.setenv("LOCAL_RANK", "2")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        with pytest.raises(ValueError, match="process 3 of this machine has no GPU, there are 2"):
            join_ranks("cuda")

    def test_an_error_of_one_process_is_no_lost_rank(self):
        assert not rank_is_lost(RuntimeError("Connection closed by peer"))


@pytest.mark.slow
def test_two_processes_go_the_way_of_one_and_one_goes_on_alone(tmp_path, flags):
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert run([sys.executable, "-m", SCRIPT, *flags, f"--checkpoint-dir={alone}"]).returncode == 0
    done = run(torchrun(*flags, f"--checkpoint-dir={both}"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nbest validation mIoU") == 1
    assert done.stdout.count("Evaluating at iteration 6") == 1
    expected, found = losses(alone), losses(both)
    assert list(found) == list(range(1, 13))
    # Equal mathematics (tests/test_ranks.py has it in float64); float32 drifts apart slowly.
    assert [found[i] for i in range(1, 4)] == pytest.approx(
        [expected[i] for i in range(1, 4)], rel=2e-3
    )
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=0.1)
    assert watched(both) == watched(alone)

    again = run(
        [
            *(sys.executable, "-m", SCRIPT, *flags, f"--checkpoint-dir={both}"),
            f"--restore-from={both / 'checkpoint_8.pth'}",
        ]
    )
    assert again.returncode == 0, again.stderr
    continued = losses(both)
    assert list(continued) == list(range(1, 13))
    assert [continued[i] for i in range(9, 13)] == pytest.approx(
        [found[i] for i in range(9, 13)], rel=0.1
    )


def start_and_wait(folder, flags):
    """Starts a long run of two processes; returns torchrun's when both are training."""
    long = [flag for flag in flags if not flag.startswith("--num-steps")]
    process = subprocess.Popen(
        torchrun(*long, "--num-steps=3000", f"--checkpoint-dir={folder}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    while not (folder / "latest_checkpoint.pth").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL to send")
def test_a_killed_process_ends_the_run_with_a_message(tmp_path, flags):
    process = start_and_wait(tmp_path / "run", flags)
    os.kill(second_process(process.pid), signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "error (process 0 of 2): another process of the run died" in errors
    assert "--restore-from latest_checkpoint.pth" in errors


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_a_signal_to_one_process_stops_all_together(tmp_path, flags):
    process = start_and_wait(tmp_path / "run", flags)
    os.kill(second_process(process.pid), signal.SIGTERM)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert output.count("stopped by SIGTERM at iteration") == 1


@pytest.mark.slow
def test_slurm_starts_processes_too(tmp_path, flags):
    folder = tmp_path / "run"
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": free_port(),
    }
    short = [flag for flag in flags if not flag.startswith("--num-steps")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", SCRIPT, *short, "--num-steps=3", f"--checkpoint-dir={folder}"],
            env={**os.environ, **slurm, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "best validation mIoU" in outputs[0]
    assert "best validation mIoU" not in outputs[1]
    assert sorted(losses(folder)) == [1, 2, 3]


def second_process(parent):
    """The process of rank 1 among the children of torchrun."""
    for child in psutil.Process(parent).children(recursive=True):
        if child.environ().get("RANK") == "1":
            return child.pid
    raise AssertionError("there is no second process")
