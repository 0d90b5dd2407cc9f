"""Checkpoints from which a run continues, and the description that guards them."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.base import Serializable
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, global_step_from_engine
from ignite.handlers.checkpoint import BaseSaveHandler

from ignite_salak.files import read_tensors, write_whole
from ignite_salak.ranks import is_first

__all__ = ["Checkpoints", "RunDescription", "restore"]

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
    """Saves ``latest_checkpoint.pth`` often and ``checkpoint_<iteration>.pth`` now and then.

    The latest one is also saved when the run is terminated or complete. Attach it last, so that a
    checkpoint holds what the other handlers did in its iteration. Of several ranks, only the first
    writes; a run may continue with another number of ranks.

    Args:
        folder: where the files go; it must exist.
        to_save: everything that a run needs to continue, by name; the same mapping goes to
            ``restore``.
        latest_every: iterations between two saves of the latest checkpoint.
        periodic_every: iterations between two checkpoints that are kept.

    Raises:
        ValueError: an interval is not positive.

    Example:
        >>> state = {"run": description, "trainer": trainer, "model": model, "ema": ema}
        >>> Checkpoints(folder, state, latest_every=100, periodic_every=5000).attach(trainer)
    """

    def __init__(
        self, folder: Path, to_save: Mapping[str, Any], *, latest_every: int, periodic_every: int
    ) -> None:
        for flag, every in (
            ("--save-latest-every", latest_every),
            ("--save-pred-every", periodic_every),
        ):
            if every < 1:
                raise ValueError(f"{flag} {every} is not at least 1")
        self.folder = folder
        self.to_save = to_save
        self.latest_every = latest_every
        self.periodic_every = periodic_every

    @property
    def latest(self) -> Path:
        """Path of the latest checkpoint."""
        return self.folder / "latest_checkpoint.pth"

    def attach(self, engine: Engine) -> None:
        """Saves after iterations where it is time."""
        latest = self._saver(engine, "latest_checkpoint.pth", n_saved=1)
        every = Events.ITERATION_COMPLETED(every=self.latest_every)
        engine.add_event_handler(every | Events.TERMINATE | Events.COMPLETED, latest)
        periodic = self._saver(engine, "checkpoint_{global_step}.pth", n_saved=None)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.periodic_every), periodic)

    def _saver(self, engine: Engine, pattern: str, n_saved: int | None) -> Checkpoint:
        return Checkpoint(
            dict(self.to_save),
            _WholeFileSaver(self.folder),
            n_saved=n_saved,
            filename_pattern=pattern,
            global_step_transform=global_step_from_engine(engine, Events.ITERATION_COMPLETED),
        )


class RunDescription(Serializable):
    """What a checkpoint belongs to: it is refused by a run of another kind.

    Args:
        fixed: facts that must be equal, by a name that fits the error message, plain values only.
        options: settings whose change only deserves a warning.
    """

    _state_dict_all_req_keys = ("fixed", "options")

    def __init__(self, fixed: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.fixed = dict(fixed)
        self.options = dict(options)

    def state_dict(self) -> OrderedDict[str, Any]:
        """Returns both mappings."""
        return OrderedDict(fixed=copy.deepcopy(self.fixed), options=copy.deepcopy(self.options))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Compares with this run.

        Raises:
            ValueError: a fixed fact differs.
        """
        super().load_state_dict(state_dict)
        for name, value in self.fixed.items():
            stored = state_dict["fixed"].get(name)
            if stored != value:
                raise ValueError(f"the checkpoint's {name} is {stored}, this run's is {value}")
        for name, value in self.options.items():
            stored = state_dict["options"].get(name)
            if stored != value:
                _LOGGER.warning("continuing with --%s %s instead of %s", name, value, stored)


def restore(
    path: Path, to_load: Mapping[str, Any], *, total: int, device: torch.device | str
) -> int:
    """Loads a checkpoint of ``Checkpoints`` into a run.

    Args:
        path: the checkpoint.
        to_load: the mapping that was given to ``Checkpoints``; "run" is checked before anything
            is loaded.
        total: iterations of this run; it may differ from that of the checkpoint.
        device: where the tensors go.

    Returns:
        The iteration from which the run continues.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, a damaged one, or one of another run.
    """
    checkpoint = read_tensors(path, device)
    missing = sorted(set(to_load) - set(checkpoint))
    if missing:
        raise ValueError(
            f"{path} is no checkpoint to continue from: it lacks "
            f"{', '.join(missing)}; give a latest_checkpoint.pth or checkpoint_<iteration>.pth"
        )
    try:
        to_load["run"].load_state_dict(checkpoint["run"])
        checkpoint["trainer"]["epoch_length"] = total
        rest = {name: thing for name, thing in to_load.items() if name != "run"}
        Checkpoint.load_objects(rest, checkpoint)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"checkpoint {path} does not fit this run: {reason}") from error
    return int(checkpoint["trainer"]["iteration"])


class _WholeFileSaver(BaseSaveHandler):
    """Writes whole files; never removes one, since a fixed name replaces its old content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        if is_first():
            write_whole(self.folder / filename, lambda file: torch.save(checkpoint, file))

    def remove(self, filename: str) -> None:
        """Keeps the file."""
