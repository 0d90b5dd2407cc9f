"""A study at a place: its data, its folders, and what the result of a cell depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.comparison.budget import flags_of
from experiments.comparison.study import Cell, Study
from experiments.options import MonitorOptions

__all__ = ["Setting", "differing"]

# What changes no result: a finished cell stays valid.
_WITHOUT_EFFECT = (
    *("num-workers", "cache", "save-latest-every", "save-pred-every"),
    *flags_of(MonitorOptions),
)


@dataclass(frozen=True)
class Setting:
    """A study, its data and where its runs go.

    Attributes:
        study: what is compared.
        data_root: folder of the patches.
        lists_folder: folder of the lists.
        output: folder of the runs.
        threads: CPU threads of every run.
    """

    study: Study
    data_root: Path
    lists_folder: Path
    output: Path
    threads: int

    def folder(self, cell: Cell) -> Path:
        """Returns the folder of a cell."""
        return self.output / cell.name

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Returns what a cell's result depends on, except for the data: plain values by name.

        Lists count by what they hold, flags in no order, and those that change no result not at
        all.

        Raises:
            FileNotFoundError: a list does not exist.
        """
        flags = self.study.flags(cell.recipe)
        return {
            "script": cell.recipe.script,
            "flags": {
                name: " ".join(group)
                for name, group in flags.items()
                if name not in _WITHOUT_EFFECT
            },
            "labeled": sorted(_listed(self._list(self.study.lists[cell.listing]))),
            "validation": sorted(_listed(self._list(self.study.validation))),
            "seed": cell.seed,
            "threads": self.threads,
        }

    def flags(self, cell: Cell, folder: Path) -> list[str]:
        """Returns a cell's command line, behind the name of the script.

        Args:
            cell: the cell.
            folder: where the run goes.
        """
        own = [token for group in self.study.flags(cell.recipe).values() for token in group]
        return [
            *own,
            *("--data-root", str(self.data_root)),
            *("--labeled-files", str(self._list(self.study.lists[cell.listing]))),
            *("--val-files", str(self._list(self.study.validation))),
            *("--seed", str(cell.seed), "--threads", str(self.threads)),
            *("--checkpoint-dir", str(folder)),
        ]

    def _list(self, name: str) -> Path:
        return self.lists_folder / name


def differing(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Says in which values two identities differ, both values each; empty if in none."""
    if made == wanted:
        return ""
    parts = []
    for name in dict.fromkeys([*wanted, *made]):
        first, second = made.get(name), wanted.get(name)
        if first == second:
            continue
        if name == "flags" and isinstance(first, dict) and isinstance(second, dict):
            flags = sorted({*first, *second})
            parts += [
                f"{first.get(flag, f'no --{flag}')} instead of {second.get(flag, f'no --{flag}')}"
                for flag in flags
                if first.get(flag) != second.get(flag)
            ]
        else:
            parts.append(f"{name} {first} instead of {second}")
    return "; ".join(parts)


def _listed(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise FileNotFoundError(f"list of source images {path} cannot be read") from error
    entries = (line.strip() for line in lines)
    return [entry for entry in entries if entry and not entry.startswith("#")]
