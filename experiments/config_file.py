"""Options of a script as config.json holds them."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["comparable", "from_json", "to_dict"]

_Group = TypeVar("_Group")


def to_dict(options: Any) -> dict[str, Any]:
    """Returns options as nested plain values, fit for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(options), default=str))


def comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a resumed run should share with the one it continues, by flag.

    Args:
        options: what ``to_dict`` returns, or config.json holds.
    """
    groups = {name: dict(group) for name, group in options.items() if isinstance(group, dict)}
    run = groups.pop("run")
    groups.pop("monitors")
    groups["data"].pop("cache")
    values = {name: run[name] for name in ("seed", "threads", "precision", "eval_every")}
    for group in groups.values():
        values |= group
    return {name.replace("_", "-"): value for name, value in values.items()}


def from_json(kind: type[_Group], path: Path) -> _Group:
    """Reads the options that a run wrote into its config.json.

    Args:
        kind: the options dataclass of the script.
        path: a config.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no config.json of that script.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--config {path} does not exist")
    try:
        return _from_dict(kind, json.loads(path.read_text(encoding="utf-8"))["options"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--config {path} is no config.json of this script: {error}") from error


def _from_dict(kind: type[_Group], values: dict[str, Any]) -> _Group:
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            arguments[name] = _from_dict(typing.cast(type, hint), value)
        elif value is not None and (hint is Path or Path in typing.get_args(hint)):
            arguments[name] = Path(value)
        else:
            arguments[name] = tuple(value) if isinstance(value, list) else value
    return kind(**arguments)
