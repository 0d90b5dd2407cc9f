"""A run that was killed ends as if it had not been."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

STEPS = 24
RUN = [sys.executable, "-m", "experiments.train_v3", f"--num-steps={STEPS}", "--eval-every=6"]


def command(plantation, folder, tiny_flags, *extra):
    flags = [flag for flag in tiny_flags if not flag.startswith(("--num-steps", "--eval-every"))]
    where = [f"--data-root={plantation.root}", f"--checkpoint-dir={folder}"]
    return [*RUN, *where, *flags, *extra]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wait_for_iteration(process, folder, least):
    """Waits until the run has saved a checkpoint and logged iteration ``least``."""
    history = folder / "history.csv"
    while process.poll() is None:
        if (folder / "latest_checkpoint.pth").exists() and history.exists():
            rows = history.read_text(encoding="utf-8").splitlines()[1:]
            if rows and int(rows[-1].split(",")[0]) >= least:
                return
        time.sleep(0.01)
    raise AssertionError(f"the run ended before iteration {least}: {process.returncode}")


def restore_flag(folder):
    latest = folder / "latest_checkpoint.pth"
    return [f"--restore-from={latest}"] if latest.exists() else []


@pytest.mark.slow
def test_kill_9_at_three_moments_ends_with_the_same_model(
    shared_plantation, tmp_path, tiny_flags, record_property
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(shared_plantation, whole, tiny_flags), check=True, capture_output=True)
    seed = random.randrange(10**6)
    record_property("seed", seed)
    print(f"seed of the moments: {seed}")
    moments = random.Random(seed)
    for least in (2, 8, 14):
        extra = restore_flag(killed)
        process = subprocess.Popen(
            command(shared_plantation, killed, tiny_flags, *extra),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_iteration(process, killed, least)
        time.sleep(moments.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        assert not (killed / "final_model_ema.pth").exists(), "killed too late to show anything"
    # The last leg reads its patches in other processes, which must not matter either.
    extra = [*restore_flag(killed), "--num-workers=2"]
    done = subprocess.run(
        command(shared_plantation, killed, tiny_flags, *extra), check=True, capture_output=True
    )
    assert b"complete" not in done.stdout
    for name in ("final_model_ema.pth", "final_model.pth", "best_model_ema.pth"):
        assert digest(killed / name) == digest(whole / name)
    watched = [(folder / "source_classes.csv").read_bytes() for folder in (whole, killed)]
    assert watched[0] == watched[1]
    rows = [
        [line.split(",")[0] for line in (folder / "history.csv").read_text("utf-8").splitlines()]
        for folder in (whole, killed)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_cleanly(shared_plantation, tmp_path, tiny_flags, number):
    folder = tmp_path / "run"
    flags = [*tiny_flags, "--save-latest-every=1000", "--num-steps=2000", "--log-every=1"]
    process = subprocess.Popen(
        command(shared_plantation, folder, flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    while not (folder / "history.csv").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"stopped by {number.name} at iteration" in output
    assert "--restore-from" in output
    assert "Traceback" not in errors
    assert (folder / "latest_checkpoint.pth").exists()
    assert not (folder / "final_model_ema.pth").exists()
    assert json.loads((folder / "summary.json").read_text("utf-8"))["state"] == "interrupted"
    assert "interrupted" in (folder / "report.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a limit on file sizes to play a full disk")
def test_a_full_disk_keeps_the_previous_checkpoint(shared_plantation, tmp_path, tiny_flags):
    folder = tmp_path / "run"
    subprocess.run(command(shared_plantation, folder, tiny_flags), check=True, capture_output=True)
    before = digest(folder / "checkpoint_20.pth"), digest(folder / "final_model_ema.pth")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
        "from experiments.console import run_script; from experiments.train_v3 import main; "
        "sys.exit(run_script(main, sys.argv[1:]))"
    )
    extra = [f"--restore-from={folder / 'checkpoint_20.pth'}"]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            limited,
            *command(shared_plantation, folder, tiny_flags, *extra)[3:],
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "latest_checkpoint.pth" in done.stderr.splitlines()[-1]
    assert "what was there is intact" in done.stderr.splitlines()[-1]
    assert before == (digest(folder / "checkpoint_20.pth"), digest(folder / "final_model_ema.pth"))
    assert not list(folder.glob("*.tmp"))
