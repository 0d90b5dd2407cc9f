"""Maps photos, patches and orthomosaics of any size with a trained model.

    python -m experiments.predict --checkpoint best_model_ema.pth INPUT... --output MAPS

INPUT is a photo, a GeoTIFF or a folder of them. Every one becomes a class raster (GeoTIFF with the
georeference of the input, PNG for a plain photo), a preview with the classes painted over it, and
its lines in MAPS/areas.csv.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from experiments.console import load_checkpoint, parse, run_script
from experiments.machine import set_up, surroundings
from experiments.map_files import MapFiles, ResultOptions
from experiments.map_record import MapRecord
from experiments.notes import Notes
from experiments.tables import area_table
from ignite_salak.data.decoding import BadFileError
from ignite_salak.inference import TestTimeAugmentation
from ignite_salak.inference.inputs import find_pictures
from ignite_salak.inference.polygons import check_polygon_format
from ignite_salak.inference.scaled import AtScale
from ignite_salak.inference.sliding_window import SlidingWindow
from ignite_salak.steps.device import autocast, image_to_device, resolve_precision
from ignite_salak.voting import predict_once


@dataclass
class WindowOptions:
    """Windows."""

    window: int = 512
    """Side of the windows in pixels of the input."""
    overlap: float = 0.5
    """Share of a window that the next one covers too."""
    scale: float | None = None
    """Pixels of the network per pixel of the input. If not given: 1, or, for a model trained with
    --input-size, input size / --patch-size."""
    patch_size: int = 256
    """Side of the patches the model was trained on, before --input-size reduced them."""
    tta: bool = False
    """Average over the eight flips and quarter turns; takes eight times as long."""

    def resolve_scale(self, trained_size: int | None) -> float:
        """Returns the scale, and says why where it is not 1."""
        if self.scale is not None:
            return self.scale
        if trained_size is None:
            return 1.0
        if self.patch_size < 1:
            raise ValueError(f"--patch-size {self.patch_size} is not at least 1")
        scale = trained_size / self.patch_size
        print(
            f"scale {scale:g}: the model was trained with --input-size {trained_size} on patches "
            f"of {self.patch_size} pixels (if they had another size, say so by --patch-size)"
        )
        return scale


@dataclass
class MachineOptions:
    """Machine."""

    batch_size: int = 4
    """Windows predicted at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Arithmetic of the network; auto is bf16 on CUDA where it can, else fp32."""
    threads: int = 0
    """CPU threads of torch (0: torch's own choice)."""
    num_workers: int = field(default=0, init=False)


@dataclass
class Options:
    """Maps photos, patches and orthomosaics of any size with a trained model.

    --debug shows the traceback of an error.
    """

    input: tyro.conf.Positional[tuple[Path, ...]]
    """Photos, GeoTIFFs, and folders of them."""
    checkpoint: Path
    """Model file of a run, such as best_model_ema.pth."""
    output: Path
    """Folder for the maps; inputs that are finished there are passed over."""
    windows: WindowOptions = field(default_factory=WindowOptions)
    results: ResultOptions = field(default_factory=ResultOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    overwrite: bool = False
    """Map all inputs again and start areas.csv anew."""
    skip_bad_files: bool = False
    """Go on without files that cannot be used, and list them."""

    def settings(self, scale: float, precision: str) -> dict[str, Any]:
        """Returns what the maps depend on besides the model, as plain values."""
        windows = {name: getattr(self.windows, name) for name in ("window", "overlap", "tta")}
        return {"scale": scale, **windows, **vars(self.results), "precision": precision}


def main(arguments: Sequence[str]) -> None:
    """Maps, from options to files."""
    options = parse(Options, arguments)
    device = set_up(options.machine)
    precision = resolve_precision(options.machine.precision, device)
    if options.results.polygons is not None:
        check_polygon_format(options.results.polygons)
    pictures = find_pictures(options.input, options.output)

    # Model
    saved = load_checkpoint(options.checkpoint, device)
    scale = options.windows.resolve_scale(saved.facts.get("input_size"))
    window = SlidingWindow(
        _predictor(saved.model, scale, options.windows.tta, device, precision),
        saved.classes.num_classes,
        size=options.windows.window,
        overlap=options.windows.overlap,
        batch_size=options.machine.batch_size,
        device=device,
    )

    # What is there already
    settings = options.settings(scale, precision)
    record = MapRecord(options.output, saved.classes, options.checkpoint, settings)
    record.load(overwrite=options.overwrite)
    waiting = record.waiting(pictures)

    # Run
    record.begin(surroundings(device))
    notes = Notes()
    files = MapFiles(options.output, saved.classes, window, options.results, notes)
    mapped, started = 0, time.perf_counter()
    alone = True if len(waiting) < 2 else None
    for name, path in tqdm(waiting.items(), desc="Mapping", unit="input", disable=alone):
        try:
            with files.open(path) as picture:
                areas = files.make(picture, name)
        except BadFileError as error:
            if not options.skip_bad_files:
                raise BadFileError(f"{error}; or go on without it by --skip-bad-files") from error
            notes.say(name, f"skipped as a bad file: {error}")
            continue
        record.table.append(name, str(path.resolve()), areas)
        mapped += picture.height * picture.width
    record.table.finish()

    # What was found
    seconds, done = time.perf_counter() - started, record.table.done
    notes.finish()
    maps = [done[name][1] for name in pictures if name in done]
    if maps:
        print(f"\n{area_table(saved.classes.names, maps)}\n")
    if mapped:
        speed = f"{mapped / 1e6 / seconds:.2f} megapixels a second"
        print(f"{mapped / 1e6:,.1f} megapixels in {seconds:,.1f} s: {speed}")
    print(
        f"{len(maps)} of {len(pictures)} inputs are mapped; the areas of each: {record.table.path}"
    )


def _predictor(
    model: nn.Module, scale: float, tta: bool, device: torch.device, precision: str
) -> Callable[[Tensor], Tensor]:
    """Returns what makes probabilities of windows of bytes."""
    model = model.to(memory_format=torch.channels_last)
    vote = TestTimeAugmentation() if tta else predict_once
    at_scale = vote if scale == 1.0 else AtScale(scale, vote)

    def predict(windows: Tensor) -> Tensor:
        try:
            with torch.inference_mode(), autocast(device, precision):
                return at_scale(model, image_to_device(windows, device))
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{device} has not enough memory for {len(windows)} windows of "
                f"{windows.shape[-1]} pixels at once: take a smaller --batch-size or --window"
            ) from error

    return predict


if __name__ == "__main__":
    sys.exit(run_script(main, None))
