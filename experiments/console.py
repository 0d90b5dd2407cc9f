"""What every script does at the border of the terminal: options, one-line errors, surroundings."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import ignite.distributed as idist
import torch
import tyro
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.launch import join_ranks, leave_ranks, rank_is_lost, ranks_per_machine
from experiments.options import RunOptions, from_json, to_dict
from ignite_salak.files import write_json
from ignite_salak.models.model_file import SavedModel, load_model
from ignite_salak.ranks import is_first, rank, rank_count

__all__ = [
    "Machine",
    "load_checkpoint",
    "open_folder",
    "parse",
    "prepare",
    "run_script",
    "set_up",
    "surroundings",
    "write_config",
]

_Options = TypeVar("_Options")
_RUN_FILES = (
    *("*checkpoint*.pth", "*_model*.pth", "history.csv", "source_classes.csv"),
    *("summary.json", "report.html", "panels/*.png", "tensorboard/events.*"),
)
_PACKAGES = ("torch", "torchvision", "pytorch-ignite", "kornia", "numpy", "pillow", "ignite-salak")


def run_script(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None) -> int:
    """Runs a script and turns what users can cause into one line and exit status 2.

    Args:
        main: the script, called with its command-line arguments.
        arguments: the arguments; None takes those of the process.

    Returns:
        Exit status: 0; 1 where nobody reads the output any more; 2 after an error of the user's
        making; 3 where another process of the run is lost. ``--debug`` shows the traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not know every character
            stream.reconfigure(encoding="utf-8", errors="replace")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", force=True)
    for noisy in ("ignite", "matplotlib", "PIL", "rasterio", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    debug = "--debug" in given
    try:
        with logging_redirect_tqdm():  # messages above a progress bar, not in its line
            main([argument for argument in given if argument != "--debug"])
        leave_ranks()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError) and not _output_is_read():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return 1
        if debug:
            traceback.print_exc()
        print(f"error{_which_rank()}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if not debug and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            print("error: torch cannot --compile here; leave it away (or --debug)", file=sys.stderr)
            return 2
        if debug or not rank_is_lost(error):
            raise
        print(
            f"error{_which_rank()}: another process of the run died or no longer answers; look for "
            "its own message, and continue with --restore-from latest_checkpoint.pth",
            file=sys.stderr,
        )
        return 3
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _output_is_read() -> bool:
    """False behind `| head`, which goes when it has read enough."""
    try:
        print(flush=True)
    except BrokenPipeError:
        return False
    return True


def _which_rank() -> str:
    return f" (process {rank()} of {rank_count()})" if rank_count() > 1 else ""


def parse(kind: type[_Options], arguments: Sequence[str]) -> _Options:
    """Reads options from the command line.

    ``--config FILE`` takes the options of an earlier run as defaults; later flags win. Where
    ``kind`` has a method ``defaults``, it is called with the arguments and returns the defaults
    that they ask for, or None for its own.

    Args:
        kind: dataclass of the options; its groups' names are no part of the flags.
        arguments: command-line arguments.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    known, rest = early.parse_known_args(arguments)
    asked = getattr(kind, "defaults", None)
    default: _Options | None = asked(arguments) if asked is not None else None
    if known.config is not None:
        default = from_json(kind, known.config)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    if default is None:
        return tyro.cli(kind, args=rest, config=config)
    return tyro.cli(kind, args=rest, default=default, config=config)


class Machine(Protocol):
    """Options that say what a script runs on."""

    device: str
    num_workers: int
    threads: int


def prepare(options: RunOptions) -> torch.device:
    """Does what ``set_up`` does, and refuses a folder that holds another run.

    Where there are several processes, they become the ranks of the run; all but the first are
    quiet.

    Raises:
        FileExistsError: the folder holds a run that is not the one to continue.
        ValueError: see ``set_up``.
    """
    device = set_up(options, join_ranks(options.device))
    _refuse_occupied(options)
    idist.barrier()  # nobody writes before all have looked
    if not is_first():
        logging.getLogger().setLevel(logging.ERROR)
        # What this rank alone has read is not said by the first.
        logging.getLogger("ignite_salak.data.loaders").setLevel(logging.WARNING)
    return device


def set_up(options: Machine, device_name: str | None = None) -> torch.device:
    """Sets torch's threads and chooses the device.

    Args:
        options: they are changed as said below.
        device_name: the device, where it is not that of the options.

    The options then hold the threads in use, and no more workers than there are cores, on which
    nothing but the speed depends.

    Raises:
        ValueError: the device does not exist, or a number is negative.
    """
    if options.threads < 0 or options.num_workers < 0:
        raise ValueError(
            f"--threads {options.threads} and --num-workers {options.num_workers}: not below 0"
        )
    if options.threads > 0:
        torch.set_num_threads(options.threads)
    options.threads = torch.get_num_threads()  # what config.json has to say
    name = options.device if device_name is None else device_name
    cores = max(1, (os.cpu_count() or 1) // ranks_per_machine())
    options.num_workers = min(options.num_workers, cores)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {options.device} cannot be used: {reason}") from error
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    return device


def _refuse_occupied(run: RunOptions) -> None:
    folder = run.checkpoint_dir
    restored = run.restore_from.resolve().parent if run.restore_from else None
    if (folder / "config.json").exists() and restored != folder.resolve() and not run.overwrite:
        raise FileExistsError(
            f"{folder} already holds a run: continue it by --restore-from "
            f"{folder / 'latest_checkpoint.pth'}, or give another --checkpoint-dir, or --overwrite"
        )


def load_checkpoint(path: Path, device: torch.device) -> SavedModel:
    """Reads the model file that --checkpoint names.

    Raises:
        ValueError: there is no such file, or it is no model file.
    """
    try:
        return load_model(path, device)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"--checkpoint {error}; expected a run's best_model_ema.pth or final_model.pth"
        ) from error


def open_folder(run: RunOptions) -> None:
    """Makes the run's folder; a run that starts anew first removes the files of the one before.

    Of several ranks, only the first does.
    """
    folder = run.checkpoint_dir
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if run.restore_from is None:
        for pattern in _RUN_FILES:
            for path in folder.glob(pattern):
                path.unlink()


def write_config(folder: Path, options: Any, device: torch.device, facts: dict[str, Any]) -> None:
    """Writes config.json: what it takes to do the run again, by ``--config``; rank 0 only.

    Args:
        folder: the run's folder.
        options: the script's options. A resumed run is described as if never interrupted.
        device: where it runs.
        facts: what else there is to know, plain values.
    """
    if not is_first():
        return
    values = to_dict(options)
    values["run"] |= {"restore_from": None, "overwrite": False}
    defaults = to_dict(type(options)())
    known = {"options": values, "defaults": defaults, **facts}
    content = {**known, "environment": surroundings(device)}
    write_json(folder / "config.json", content)


def surroundings(device: torch.device) -> dict[str, Any]:
    """Returns the command, the versions and the hardware, as plain values.

    The processor and the vector instructions that torch uses on it are named because they decide
    how sums are rounded, and with it where a seed ends.
    """
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processes": rank_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
