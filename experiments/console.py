"""What every script does at the border of the terminal: options, and errors in one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
import tyro
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.config_file import from_json
from experiments.launch import leave_ranks, rank_is_lost
from ignite_salak.models.model_file import SavedModel, load_model
from ignite_salak.ranks import rank, rank_count

__all__ = ["load_checkpoint", "parse", "run_script"]

_Options = TypeVar("_Options")


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
