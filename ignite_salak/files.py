"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["write_json", "write_whole"]


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
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # torch.save reports a failed write as RuntimeError.
        if isinstance(error, (OSError, RuntimeError)):
            raise OSError(f"cannot write {path}, what was there is intact: {error}") from error
        raise


def write_json(path: Path, values: Any) -> None:
    """Writes indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n"
    write_whole(path, lambda file: file.write(text.encode("utf-8")))
