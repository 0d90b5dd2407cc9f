"""Writes a trained model as one file for QGIS (ONNX, for the plug-in Deepness) or for torch.export.

    python -m experiments.export checkpoints_v3/best_model_ema.pth --resolution 5

The file takes RGB tiles in 0-1 and gives probabilities; it is compared with the library before it
is written.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.export import ExportedProgram

from experiments.console import parse, run_script
from ignite_salak import __version__
from ignite_salak.data.decoding import read_image
from ignite_salak.data.patches import IMAGE_SUFFIXES
from ignite_salak.files import write_whole
from ignite_salak.models.export import (
    INPUT_NAME,
    OPSET,
    OUTPUT_NAME,
    Runner,
    TileClassifier,
    compare,
    deepness_metadata,
    onnx_runner,
    require_onnx,
    to_json,
    to_onnx,
    to_torch,
    torch_runner,
    trace,
)
from ignite_salak.models.model_file import SavedModel, load_model
from ignite_salak.voting import vote

_BATCH_SIZES = (1, 4)
_DEFAULT_TILE = 256
_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}

_Pack = Callable[[ExportedProgram, Mapping[str, str]], bytes]
_FORMATS: dict[str, tuple[_Pack, Callable[[bytes], Runner]]] = {
    "onnx": (to_onnx, onnx_runner),
    "torch": (to_torch, torch_runner),
}


@dataclass
class Options:
    """Writes a trained model as one file for QGIS (ONNX) or for torch.export."""

    model: tyro.conf.Positional[Path]
    """Model file of a run, such as best_model_ema.pth."""
    output: Path | None = None
    """File to write; beside MODEL if not given. The suffix follows the format."""
    format: Literal["onnx", "torch", "both"] = "onnx"
    """ONNX (needs the extra export), torch.export (.pt2), or both."""
    tile_size: int | None = None
    """Side of the tiles in pixels; the --input-size of the training, or 256, if not given."""
    resolution: float | None = None
    """Ground size in cm of a pixel as the network sees it, that is of the patches, or more where
    --input-size reduced them; to be set in QGIS if not given."""
    overlap: float = 0.25
    """Share of a tile that the next one covers too."""
    threshold: float = 0.0
    """QGIS shows background where no class is as probable; 0: always the likeliest class."""
    check_images: Path | None = None
    """Folder of images to compare on, besides random ones."""

    def files(self) -> dict[str, Path]:
        """Returns the file of every format; its folder must exist."""
        kinds = tuple(_SUFFIXES) if self.format == "both" else (self.format,)
        base = self.model.with_suffix("") if self.output is None else self.output
        if base.suffix in _SUFFIXES.values():
            if base.suffix not in (_SUFFIXES[kind] for kind in kinds):
                raise ValueError(f"--output {base} does not fit --format {self.format}")
            base = base.with_suffix("")
        if not base.parent.is_dir():
            raise FileNotFoundError(f"--output: the folder {base.parent} does not exist")
        return {kind: base.with_name(base.name + _SUFFIXES[kind]) for kind in kinds}

    def batches(self, tile_size: int) -> list[Tensor]:
        """Returns tiles float32 [B, 3, T, T] to compare on, at two sizes of the batch."""
        generator = torch.Generator().manual_seed(0)
        shape = (3, tile_size, tile_size)
        random = [torch.rand(count, *shape, generator=generator) for count in _BATCH_SIZES]
        if self.check_images is None:
            return random
        return random + list(_read_tiles(self.check_images, tile_size).split(_BATCH_SIZES))


def main(arguments: Sequence[str]) -> None:
    """Traces, converts, compares, writes, and says how to go on."""
    options = parse(Options, arguments)
    files = options.files()
    if "onnx" in files:
        require_onnx()
    saved = load_model(options.model)
    tile_size = options.tile_size
    if tile_size is None:
        tile_size = saved.facts.get("input_size") or _DEFAULT_TILE
    metadata = deepness_metadata(
        saved.classes,
        tile_size,
        resolution=options.resolution,
        overlap=options.overlap,
        threshold=options.threshold,
    ) | {"ignite_salak": to_json(_origin(saved, options.model))}
    classifier = TileClassifier(saved.model, vote)
    program = trace(classifier, tile_size)
    batches = options.batches(tile_size)
    shape = f"3, {tile_size}, {tile_size}"
    print(
        f"{INPUT_NAME} float32 [batch, {shape}], RGB in 0-1 -> "
        f"{OUTPUT_NAME} float32 [batch, {saved.classes.num_classes}{shape[1:]}]"
    )
    for kind, path in files.items():
        pack, load = _FORMATS[kind]
        content = pack(program, metadata)
        difference = compare(classifier, load(content), batches)
        _write(path, content)
        described = f", opset {OPSET}" if kind == "onnx" else ""
        print(
            f"{path}: {len(content) / 1e6:.1f} MB{described}; largest difference from the library "
            f"{difference:.1e} on {sum(map(len, batches))} tiles, batches of 1 and 4"
        )
    if options.check_images is None:
        print("compared on random tiles only; --check-images FOLDER adds your own")
    if "onnx" in files:
        print(_guide(options.resolution))


def _origin(saved: SavedModel, path: Path) -> dict[str, Any]:
    """Where the model comes from; scores of absent classes, which are NaN, become null."""
    scores = {
        name: value if math.isfinite(value) else None
        for name, value in saved.facts.get("scores", {}).items()
    }
    return {
        "version": __version__,
        "model_file": path.name,
        "architecture": asdict(saved.spec),
        "iteration": saved.facts.get("iteration"),
        "scores": scores,
        "classes": saved.classes.to_dict(),
    }


def _read_tiles(folder: Path, tile_size: int) -> Tensor:
    """Reads five images from all over the folder, float32 [5, 3, T, T]."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--check-images {folder} is not a folder")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and "masks" not in path.relative_to(folder).parts
    )
    if not paths:
        raise FileNotFoundError(f"--check-images {folder} holds no {', '.join(IMAGE_SUFFIXES)}")
    count = sum(_BATCH_SIZES)
    chosen = [paths[number * len(paths) // count] for number in range(count)]
    tiles = [
        np.array(Image.fromarray(read_image(path)).resize((tile_size, tile_size)))
        for path in chosen
    ]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous().float() / 255


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda file: file.write(content))


def _guide(resolution: float | None) -> str:
    scale = (
        "set the resolution to the centimetres per pixel of the training (no --resolution given)"
        if resolution is None
        else f"the layer is resampled to {resolution:g} cm per pixel"
    )
    return (
        "In QGIS: Plugins > Deepness, an RGB layer as input, this .onnx file as the model;\n"
        f"  tiles, overlap and class names come out of the file; {scale}"
    )


if __name__ == "__main__":
    sys.exit(run_script(main, None))
