"""Files that are written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

__all__ = ["read_tensors", "write_json", "write_table", "write_whole"]

_LOGGER = logging.getLogger(__name__)
_RENAME_TRIES = 10
_RENAME_PAUSE = 0.1  # seconds


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file under a temporary name beside it, then renames it.

    Until the rename the file's old content stays, whatever happens. The temporary name is always
    the same, so a killed process leaves at most one such file, which the next write replaces.

    Args:
        path: the file; its folder must exist.
        write: receives the open binary file.

    Raises:
        OSError: the file cannot be written; the old one is intact.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # torch.save reports a failed write as RuntimeError.
        if isinstance(error, (OSError, RuntimeError)):
            kind = PermissionError if isinstance(error, PermissionError) else OSError
            raise kind(f"cannot write {path}, what was there is intact: {error}") from error
        raise


def _rename(temporary: Path, path: Path) -> None:
    """Renames, with patience: on Windows a virus scanner or a viewer may hold the old file."""
    for _ in range(_RENAME_TRIES - 1):
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(_RENAME_PAUSE)
    temporary.replace(path)


def write_json(path: Path, values: Any) -> None:
    """Writes indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n"
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes UTF-8 CSV with a head, whole, for a file that grows during a run.

    A file that a spreadsheet holds open on Windows costs a warning: it is written the next time.

    Args:
        path: the file; its folder must exist.
        rows: values by column; the columns stand in the order in which they first occur.

    Raises:
        OSError: the file cannot be written for another reason; the old one is intact.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)))
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_whole(path, lambda file: file.write(text.getvalue().encode("utf-8")))
    except PermissionError as error:
        _LOGGER.warning("%s; is it open in another program? Trying again later.", error)


def read_tensors(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Reads a mapping that ``torch.save`` wrote; runs no code of the file.

    Args:
        path: the file.
        device: where the tensors go.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or a damaged one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no file of torch.save, or a damaged one")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping but a {type(content).__name__}")
    return content
