"""The folder of a training run: whose it is, what it begins with, and its config.json."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch

from experiments.config_file import to_dict
from experiments.launch import join_ranks
from experiments.machine import set_up, surroundings
from experiments.options import RunOptions
from ignite_salak.data.listings import write_list
from ignite_salak.files import write_json
from ignite_salak.ranks import is_first

__all__ = ["open_folder", "prepare", "write_config"]

_RUN_FILES = (
    *("*checkpoint*.pth", "*_model*.pth", "history.csv", "source_classes.csv"),
    *("summary.json", "report.html", "panels/*.png", "tensorboard/events.*"),
)


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


def _refuse_occupied(run: RunOptions) -> None:
    folder = run.checkpoint_dir
    restored = run.restore_from.resolve().parent if run.restore_from else None
    if (folder / "config.json").exists() and restored != folder.resolve() and not run.overwrite:
        raise FileExistsError(
            f"{folder} already holds a run: continue it by --restore-from "
            f"{folder / 'latest_checkpoint.pth'}, or give another --checkpoint-dir, or --overwrite"
        )


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
    """Writes config.json and validation.txt: what it takes to do the run again; rank 0 only.

    The first is for ``--config``; the second lists the validation photos, for ``--val-files``: of a
    run that goes on with more labels, and is judged on the same photos.

    Args:
        folder: the run's folder.
        options: the script's options. A resumed run is described as if never interrupted.
        device: where it runs.
        facts: what else there is to know, plain values; "sources" names those of every pool.
    """
    if not is_first():
        return
    values = to_dict(options)
    values["run"] |= {"restore_from": None, "overwrite": False}
    defaults = to_dict(type(options)())
    known = {"options": values, "defaults": defaults, **facts}
    content = {**known, "environment": surroundings(device)}
    write_json(folder / "config.json", content)
    write_list(folder / "validation.txt", facts["sources"]["validation"])
