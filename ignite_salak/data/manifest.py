"""What an interrupted ``patchify`` has finished already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ignite_salak.files import write_whole

__all__ = ["Manifest"]


class Manifest:
    """A text file in the unfinished output: first the settings, then a line per finished task.

    Args:
        folder: the unfinished output; made if missing.
        settings: plain values on which the patches depend.

    Attributes:
        done: what was recorded, by task.

    Raises:
        FileExistsError: the folder is not empty and holds no such file.
        ValueError: it was begun with other settings, or the file is damaged.
    """

    NAME = "unfinished.jsonl"

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._path = folder / self.NAME
        self.done: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        lines = self._read()
        if lines:
            self._compare(lines[0], settings)
            self.done = {line["task"]: line for line in lines[1:]}
        # Written anew: the last line may be torn, and the next would go on in the middle of it.
        text = "".join(_line(values) for values in (settings, *self.done.values()))
        write_whole(self._path, lambda file: file.write(text.encode("utf-8")))
        self._file = self._path.open("a", encoding="utf-8", newline="\n")

    def add(self, task: str, values: dict[str, Any]) -> None:
        """Records a finished task; a killed process loses nothing that was recorded."""
        self.done[task] = {"task": task, **values}
        self._file.write(_line(self.done[task]))
        self._file.flush()

    def close(self) -> None:
        """Closes the file, so that the folder can be renamed on Windows."""
        self._file.close()

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if any(path.suffix != ".tmp" for path in self.folder.iterdir()):
                raise FileExistsError(
                    f"{self.folder} is in the way: it is not the unfinished output of this "
                    "version; delete or rename it"
                ) from None
            return []
        whole = text.splitlines()[: text.count("\n")]
        try:
            return [json.loads(line) for line in whole]
        except ValueError as error:
            raise ValueError(f"{self._path} is damaged; delete {self.folder}") from error

    def _compare(self, before: dict[str, Any], settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{self.folder} was begun with {name} {_shown(before.get(name))}, now it is "
                    f"{_shown(value)}: go on as it was begun, or delete {self.folder}"
                )


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
