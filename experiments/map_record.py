"""The record of a folder of maps: with which settings they are made, and which are finished."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.map_files import has_map
from ignite_salak.classes import ClassMap
from ignite_salak.files import write_json
from ignite_salak.inference.areas import AreaTable

__all__ = ["MapRecord"]


class MapRecord:
    """Keeps predict.json, class_mapping.csv and areas.csv, so that a run can be continued.

    Args:
        folder: folder of the maps.
        classes: the class list.
        checkpoint: model file.
        settings: what else the maps depend on, plain values.

    Attributes:
        table: areas of the finished inputs.
    """

    def __init__(
        self, folder: Path, classes: ClassMap, checkpoint: Path, settings: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.classes = classes
        self.table = AreaTable(folder, classes)
        model = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        # As they will be read: a tuple as a list, for example.
        self._settings = json.loads(json.dumps({"checkpoint (SHA-256)": model, **settings}))
        self._path = folder / "predict.json"

    def load(self, *, overwrite: bool = False) -> None:
        """Reads what is finished, or forgets it.

        Raises:
            ValueError: the maps were made with other settings, or a file is damaged.
        """
        if overwrite:
            self.table.discard()
        else:
            self._refuse_other_settings()
        self.table.load()

    def waiting(self, pictures: dict[str, Path]) -> dict[str, Path]:
        """Returns the pictures that are not finished, and says so where some are.

        Raises:
            ValueError: the map of a name is one of another picture.
        """
        waiting = {}
        for name, path in pictures.items():
            source, _ = self.table.done.get(name, (None, None))
            if source not in (None, str(path.resolve())):
                raise ValueError(
                    f"--output {self.folder} holds {name} as a map of {source}, not of {path}: "
                    "give another --output, or --overwrite"
                )
            if source is None or not has_map(self.folder / name):
                waiting[name] = path
        if len(waiting) < len(pictures):
            print(f"{len(pictures) - len(waiting)} of {len(pictures)} inputs are finished already")
        return waiting

    def begin(self, environment: dict[str, Any]) -> None:
        """Makes the folder and writes what is known before the first map."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path, {"settings": self._settings, "environment": environment})
        self.classes.to_csv(self.folder / "class_mapping.csv")
        self.table.begin()

    def _refuse_other_settings(self) -> None:
        if not self._path.exists():
            return
        try:
            before = dict(json.loads(self._path.read_text(encoding="utf-8"))["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} is damaged ({error}): take --overwrite") from error
        changed = [
            f"{name} {before.get(name)}, now {value}"
            for name, value in self._settings.items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"--output {self.folder} holds maps made with {'; '.join(changed)}: give another "
                "--output, or --overwrite"
            )
