"""Maps photos, patches and orthomosaics of any size with a trained model.

    python -m experiments.predict --checkpoint best_model_ema.pth INPUT... --output MAPS

INPUT is a photo, a GeoTIFF or a folder of them. Every one becomes a class raster (GeoTIFF with the
georeference of the input, PNG for a plain photo), a preview with the classes painted over it, and
its lines in MAPS/areas.csv.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import operator
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from experiments.console import parse, run_script, set_up, surroundings
from experiments.tables import text_table
from ignite_salak.classes import ClassMap
from ignite_salak.data.decoding import BadFileError
from ignite_salak.files import write_json
from ignite_salak.inference import TestTimeAugmentation
from ignite_salak.inference.areas import AreaCount, AreaTable, ClassAreas
from ignite_salak.inference.inputs import find_pictures
from ignite_salak.inference.maps import create_map, in_blocks
from ignite_salak.inference.polygons import check_polygon_format, write_polygons
from ignite_salak.inference.previews import Preview
from ignite_salak.inference.rasters import GeoRaster, Picture, open_picture
from ignite_salak.inference.scaled import AtScale
from ignite_salak.inference.sliding_window import Band, SlidingWindow
from ignite_salak.inference.styles import write_qgis_style
from ignite_salak.models.model_file import SavedModel, load_model
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
class ResultOptions:
    """Results."""

    confidence: bool = False
    """Write a raster of the probability of the chosen class, in percent."""
    overlay: bool = True
    """Write a preview of up to 2048 pixels, the classes painted over the photo."""
    polygons: Literal["geojson", "gpkg"] | None = None
    """Write the regions of inputs with a CRS as polygons, which takes memory (gpkg needs fiona)."""
    min_region: int = 100
    """Regions of fewer pixels are given to their neighbours in the polygons."""
    black_is_nodata: bool = False
    """Take pure black pixels for "no image content"."""
    bands: tuple[int, int, int] | None = None
    """Numbers of the red, green and blue band of TIFFs that do not say so, from 1."""


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


def main(arguments: Sequence[str]) -> None:
    """Maps, from options to files."""
    options = parse(Options, arguments)
    device = set_up(options.machine)
    precision = resolve_precision(options.machine.precision, device)
    if options.results.polygons is not None:
        check_polygon_format(options.results.polygons)
    pictures = find_pictures(options.input, options.output)

    # Model
    saved = _load(options.checkpoint, device)
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
    table = AreaTable(options.output, saved.classes)
    settings = _settings(options, scale, precision)
    if options.overwrite:
        table.discard()
    else:
        _refuse_other_settings(options.output, settings)
    table.load()
    waiting = _waiting(pictures, table, options.output)

    # Run
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"settings": settings, "environment": surroundings(device)}
    write_json(options.output / "predict.json", record)
    saved.classes.to_csv(options.output / "class_mapping.csv")
    table.begin()
    notes = Notes()
    mapped, started = 0, time.perf_counter()
    for name, path in tqdm(
        waiting.items(), desc="Mapping", unit="input", disable=None if len(waiting) > 1 else True
    ):
        try:
            with _open(path, options.results) as picture:
                areas = _map(picture, name, options, saved.classes, window, notes)
        except BadFileError as error:
            if not options.skip_bad_files:
                raise
            notes.say(name, f"skipped as a bad file: {error}")
            continue
        table.append(name, str(path.resolve()), areas)
        mapped += picture.height * picture.width
    table.finish()

    # What was found
    seconds = time.perf_counter() - started
    notes.finish()
    done = [table.done[name][1] for name in pictures if name in table.done]
    if done:
        print(f"\n{area_table(saved.classes.names, done)}\n")
    if mapped:
        print(
            f"{mapped / 1e6:,.1f} megapixels in {seconds:,.1f} s: "
            f"{mapped / 1e6 / seconds:.2f} megapixels a second"
        )
    print(f"{len(done)} of {len(pictures)} inputs are mapped; the areas of each: {table.path}")


class Notes:
    """Says what a user should know of an input when it first occurs, then only counts it."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def say(self, name: str, text: str) -> None:
        """Prints a note on an input, unless another input had the same."""
        names = self._names.setdefault(text, [])
        if not names:
            tqdm.write(f"{name}: {text}")
        names.append(name)

    def finish(self) -> None:
        """Prints how many inputs had the notes of which only the first was printed."""
        for text, names in self._names.items():
            if len(names) > 1:
                print(f"{len(names)} inputs, {names[0]} to {names[-1]}: {text}")


def area_table(names: Sequence[str], maps: Sequence[ClassAreas]) -> str:
    """Returns a table of the areas of all maps together, one class a line.

    Args:
        names: class names.
        maps: areas of at least one map; without hectares of all of them there are none.
    """
    total = functools.reduce(operator.add, maps)
    columns = [names, [f"{n:,}" for n in total.pixels], [f"{n:.2%}" for n in total.shares]]
    if total.hectares is None:
        return text_table(("class", "pixels", "share"), zip(*columns, strict=True))
    columns.append([f"{n:,.4f}" for n in total.hectares])
    return text_table(("class", "pixels", "share", "hectares"), zip(*columns, strict=True))


def _load(path: Path, device: torch.device) -> SavedModel:
    try:
        return load_model(path, device)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"--checkpoint {error}; expected a run's best_model_ema.pth or final_model.pth"
        ) from error


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


def _settings(options: Options, scale: float, precision: str) -> dict[str, Any]:
    """Returns what the maps depend on, as plain values."""
    content = options.checkpoint.read_bytes()
    windows: dict[str, Any] = {
        name: getattr(options.windows, name) for name in ("window", "overlap", "tta")
    }
    settings: dict[str, Any] = {
        "checkpoint (SHA-256)": hashlib.sha256(content).hexdigest(),
        "scale": scale,
    }
    settings |= {**windows, **vars(options.results), "precision": precision}
    return json.loads(json.dumps(settings))


def _refuse_other_settings(output: Path, settings: dict[str, Any]) -> None:
    path = output / "predict.json"
    if not path.exists():
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): take --overwrite") from error
    changed = [
        f"{name} {before.get(name)}, now {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"--output {output} holds maps made with {'; '.join(changed)}: give another --output, "
            "or --overwrite"
        )


def _waiting(pictures: dict[str, Path], table: AreaTable, output: Path) -> dict[str, Path]:
    """Returns the pictures that are not finished."""
    waiting = {}
    for name, path in pictures.items():
        source, _ = table.done.get(name, (None, None))
        if source not in (None, str(path.resolve())):
            raise ValueError(
                f"--output {output} holds {name} as a map of {source}, not of {path}: give another "
                "--output, or --overwrite"
            )
        maps = (_file(output / name, f"classes.{suffix}") for suffix in ("tif", "png"))
        if source is None or not any(file.exists() for file in maps):
            waiting[name] = path
    if len(waiting) < len(pictures):
        print(f"{len(pictures) - len(waiting)} of {len(pictures)} inputs are finished already")
    return waiting


def _open(path: Path, options: ResultOptions) -> Picture:
    return open_picture(path, black_is_nodata=options.black_is_nodata, bands=options.bands)


def _map(
    picture: Picture,
    name: str,
    options: Options,
    classes: ClassMap,
    window: SlidingWindow,
    notes: Notes,
) -> ClassAreas:
    """Makes all files of one input."""
    stem, results = options.output / name, options.results
    for text in picture.notes:
        notes.say(name, text)
    areas = AreaCount(classes.num_classes, picture)
    if areas.reason is not None:
        polygons = "" if results.polygons is None else " and no polygons"
        notes.say(name, f"no hectares{polygons}: {areas.reason}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("classes", "confidence", "overlay", "polygons"):  # of an earlier run
        for path in stem.parent.glob(f"{glob.escape(stem.name)}_{kind}.*"):
            path.unlink()
    preview = Preview(picture.height, picture.width)
    with ExitStack() as stack:
        class_map = stack.enter_context(create_map(_file(stem, "classes"), picture, classes))
        confidence_map = None
        if results.confidence:
            confidence_map = stack.enter_context(create_map(_file(stem, "confidence"), picture))
        for block in in_blocks(_bar(picture, window, name)):
            class_map.write(block.top, block.classes)
            if confidence_map is not None:
                confidence_map.write(block.top, block.confidence)
            areas.add(block)
            preview.add(block)
        if confidence_map is not None:
            confidence_map.commit()
        class_map.commit()
    if results.overlay:
        preview.save(_file(stem, "overlay.jpg"), classes)
    if isinstance(picture, GeoRaster):
        write_qgis_style(_file(stem, "classes.qml"), classes)
    if results.polygons is not None and areas.reason is None:
        path = _file(stem, f"polygons.{results.polygons}")
        write_polygons(class_map.path, path, classes, min_pixels=results.min_region)
    _say_black(picture, name, notes)
    return areas.result()


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}_{ending}")


def _bar(picture: Picture, window: SlidingWindow, name: str) -> Iterator[Band]:
    rows = window.rows(picture.height)
    bands = window(picture.read, picture.height, picture.width)
    return iter(tqdm(bands, name, rows, leave=False, unit="row", delay=2.0, disable=None))


def _say_black(picture: Picture, name: str, notes: Notes) -> None:
    share = picture.black / (picture.height * picture.width)
    if share > _MUCH_BLACK and not picture.black_is_nodata:
        notes.say(
            name,
            f"over {_MUCH_BLACK:.0%} of its pixels are pure black and were mapped all the same; if "
            "there is no image content, take --black-is-nodata",
        )


_MUCH_BLACK = 0.01


if __name__ == "__main__":
    sys.exit(run_script(main, None))
