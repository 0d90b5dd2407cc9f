"""The border of the terminal."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.console import parse, run_script
from experiments.train_v3 import Options


@pytest.mark.parametrize(
    "error", [ValueError("a\n  b"), FileNotFoundError("a b"), FloatingPointError("a b")]
)
def test_what_users_cause_is_one_line_and_exit_status_2(capsys, error):
    def main(arguments):
        raise error

    assert run_script(main, []) == 2
    assert capsys.readouterr().err == "error: a b\n"


@pytest.mark.skipif(os.name == "nt", reason="a broken pipe is no BrokenPipeError on Windows")
def test_a_reader_that_has_read_enough_is_no_error():
    script = [sys.executable, "-m", "experiments.train_v3", "--help"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_any_other_broken_pipe_is_an_error(capsys):
    def main(arguments):
        raise BrokenPipeError(32, "Broken pipe")

    assert run_script(main, []) == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_debug_shows_the_traceback_and_is_no_option_of_the_script(capsys):
    given = []

    def main(arguments):
        given.extend(arguments)
        raise ValueError("no")

    assert run_script(main, ["--seed=1", "--debug"]) == 2
    assert given == ["--seed=1"]
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    def main(arguments):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main, [])


def test_characters_that_a_console_lacks_do_not_stop_a_run(capsysbinary):
    def main(arguments):
        print("✓ Pohon Berinang")
        logging.getLogger("ignite_salak").warning("✓")

    assert run_script(main, []) == 0
    assert "✓ Pohon".encode() in capsysbinary.readouterr().out


def test_config_gives_defaults_and_later_flags_win(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        '{"options": {"run": {"seed": 7, "eval_every": 11, "checkpoint_dir": "x"}}}', "utf-8"
    )
    for flags in (["--config", str(path), "--seed=8"], [f"--config={path}", "--seed", "8"]):
        options = parse(Options, flags)
        assert (options.run.seed, options.run.eval_every) == (8, 11)
        assert options.run.checkpoint_dir == Path("x")


def test_a_flag_may_bring_defaults_and_other_flags_win():
    @dataclass
    class Speed:
        fast: bool = False
        steps: int = 10
        width: int = 3

        @classmethod
        def defaults(cls, arguments):
            return cls(fast=True, steps=2, width=1) if "--fast" in arguments else None

    assert parse(Speed, ["--width=5"]) == Speed(False, 10, 5)
    assert parse(Speed, ["--fast", "--width=5"]) == Speed(True, 2, 5)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"options": {"sneed": 1}}'])
def test_a_config_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match="is no config"):
        parse(Options, [f"--config={path}"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        parse(Options, ["--config=nowhere.json"])


def test_a_network_that_cannot_be_compiled_costs_one_line(capsys):
    from torch._dynamo.exc import TorchRuntimeError

    def main(arguments):
        raise TorchRuntimeError("no compiler")

    assert run_script(main, []) == 2
    assert "--compile" in capsys.readouterr().err
    with pytest.raises(TorchRuntimeError):
        run_script(main, ["--debug"])


def test_a_lost_process_is_told_apart_from_other_errors(capsys, monkeypatch):
    def main(arguments):
        raise RuntimeError("Connection reset by peer")

    with pytest.raises(RuntimeError, match="Connection reset"):
        run_script(main, [])  # alone, it is some other error
    monkeypatch.setattr("experiments.launch.idist.get_world_size", lambda: 2)
    assert run_script(main, []) == 3
    assert "another process of the run died" in capsys.readouterr().err
