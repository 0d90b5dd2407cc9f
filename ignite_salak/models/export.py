"""A trained model as one file that runs without this library: ONNX, or torch.export.

Both take RGB tiles in 0-1 and give probabilities: normalisation, heads and vote are inside.

Shape legend: N heads, B tiles of a batch, C classes, T side of the square tiles.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ignite_salak.classes import ClassMap
from ignite_salak.models.encoder_weights import in_one_line

__all__ = [
    "INPUT_NAME",
    "OPSET",
    "OUTPUT_NAME",
    "TOLERANCE",
    "Runner",
    "TileClassifier",
    "compare",
    "deepness_metadata",
    "onnx_runner",
    "require_onnx",
    "to_json",
    "to_onnx",
    "to_torch",
    "torch_runner",
    "trace",
]

OPSET = 18
"""The oldest operator set that torch's exporter writes; onnxruntime reads it since 1.14."""

INPUT_NAME = "images"
OUTPUT_NAME = "probabilities"

TOLERANCE = 1e-4
"""Largest difference between a probability of the file and one of the library."""

# The exporter stamps a later version, of which it uses nothing and which onnxruntime reads only
# since 1.18; Deepness installs versions before that.
_IR_VERSION = 8
_SMALLEST_TILE = 32
_MOST_OVERLAP = 0.9
_METADATA_FILE = "metadata.json"

Runner = Callable[[Tensor], Tensor]
"""Tiles float32 [B, 3, T, T] -> probabilities float32 [B, C, T, T]."""


class TileClassifier(nn.Module):
    """A model and its vote as one network.

    Args:
        model: takes RGB in 0-1 and returns logits [N, B, C, H, W].
        vote: turns them into probabilities [B, C, H, W], such as ``voting.vote``.

    Example:
        >>> program = trace(TileClassifier(saved.model, vote), tile_size=256)
        >>> content = to_onnx(program, deepness_metadata(saved.classes, 256))
    """

    def __init__(self, model: nn.Module, vote: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.vote = vote

    def forward(self, images: Tensor) -> Tensor:
        """Computes probabilities, float32 [B, C, H, W], of float32 [B, 3, H, W] in 0-1."""
        return self.vote(self.model(images))


def trace(classifier: nn.Module, tile_size: int) -> ExportedProgram:
    """Records what the network computes for batches of any size.

    Args:
        classifier: see ``TileClassifier``; it is put in evaluation mode.
        tile_size: T, fixed: Deepness can use no model whose tiles may have any size.

    Returns:
        The program, without the paths of this machine.

    Raises:
        ValueError: the tiles are smaller than 32 pixels, or the network cannot be traced.
    """
    if tile_size < _SMALLEST_TILE:
        raise ValueError(f"--tile-size {tile_size} is not at least {_SMALLEST_TILE}")
    example = torch.rand(2, 3, tile_size, tile_size)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                classifier.eval(), (example,), dynamic_shapes=({0: Dim("batch", min=1)},)
            )
    except Exception as error:  # torch's tracer raises what it likes
        raise ValueError(f"the model cannot be traced: {in_one_line(error)}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def to_onnx(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Converts a program to ONNX, weights included.

    Args:
        program: of ``trace``.
        metadata: texts that travel with the file.

    Raises:
        ImportError: a package for ONNX is missing, or too old for this torch.
        ValueError: the program cannot be converted.
    """
    require_onnx()
    import onnx

    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
            proto = converted.model_proto  # type: ignore[union-attr]
        proto.ir_version = _IR_VERSION
        _remove_notes(proto)
        onnx.helper.set_model_props(proto, dict(metadata))
        onnx.checker.check_model(proto, full_check=True)
        return proto.SerializeToString()
    except ImportError as error:
        raise ImportError(
            f"onnxscript does not fit torch {torch.__version__} ({error}): "
            "pip install --upgrade onnxscript"
        ) from error
    except Exception as error:  # of torch, onnxscript, onnx or protobuf
        raise ValueError(f"the model cannot be converted to ONNX: {in_one_line(error)}") from error


def _remove_notes(proto: Any) -> None:
    """Takes the exporter's notes out: paths of this machine, unknown to IR versions below 10."""
    graph = proto.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    graph.ClearField("value_info")


def to_torch(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Packs a program as ``torch.export.save`` does, with the metadata beside it."""
    file = io.BytesIO()
    extra = {_METADATA_FILE: to_json(dict(metadata))}
    with _quiet():
        torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def onnx_runner(content: bytes) -> Runner:
    """Loads an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        content, sess_options=options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT_NAME], {INPUT_NAME: images.numpy()})[0])

    return run


def torch_runner(content: bytes) -> Runner:
    """Loads what ``to_torch`` packed."""
    with _quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return run


def compare(classifier: nn.Module, run: Runner, batches: Iterable[Tensor]) -> float:
    """Compares the probabilities of a file with those of the library.

    Args:
        classifier: what was traced.
        run: the loaded file.
        batches: tiles, float32 [B, 3, T, T]; batches of more than one size.

    Returns:
        The largest absolute difference.

    Raises:
        ValueError: it is over ``TOLERANCE``, or no number.
    """
    largest = 0.0
    for images in batches:
        with torch.no_grad():
            expected = classifier(images)
        found = run(images)
        if found.shape != expected.shape:
            raise ValueError(
                f"the exported model answers with {tuple(found.shape)}, the library with "
                f"{tuple(expected.shape)}: nothing was written"
            )
        difference = (found - expected).abs().max().item()
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the exported model differs from the library by {difference:.1e} for a batch of "
                f"{len(images)}, over {TOLERANCE:.0e}: nothing was written"
            )
        largest = max(largest, difference)
    return largest


def deepness_metadata(
    classes: ClassMap,
    tile_size: int,
    *,
    resolution: float | None = None,
    overlap: float = 0.25,
    threshold: float = 0.0,
) -> dict[str, str]:
    """Describes a model to Deepness, the plug-in of QGIS.

    Its documentation says "tiles_size" and its code reads "tile_size", so both are there.

    Args:
        classes: the class list.
        tile_size: T.
        resolution: ground size in centimetres of a pixel as the network sees it; left out if None.
        overlap: share of a tile that the next one covers too, in 0 to 0.9.
        threshold: pixels whose every class is below it become background; at 0 each has its
            likeliest class, as in this library.

    Returns:
        JSON by key, for ``to_onnx``.

    Raises:
        ValueError: a number is out of range.
    """
    if resolution is not None and not (resolution > 0 and math.isfinite(resolution)):
        raise ValueError(f"--resolution {resolution} is no positive number of centimetres")
    if not 0 <= overlap <= _MOST_OVERLAP:
        raise ValueError(f"--overlap {overlap} is not in 0 to {_MOST_OVERLAP}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold {threshold} is not between 0 and 1")
    values: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": dict(enumerate(classes.names)),
        "tile_size": tile_size,
        "tiles_size": tile_size,
        "tiles_overlap": round(100 * overlap),
        "seg_thresh": threshold,
        "seg_small_segment": 0,
    }
    if resolution is not None:
        values["resolution"] = resolution
    return {key: to_json(value) for key, value in values.items()}


def to_json(value: Any) -> str:
    """Encodes a value of the metadata."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def require_onnx() -> None:
    """Imports what ``to_onnx`` and ``onnx_runner`` need.

    Raises:
        ImportError: it is not there; the message says how to install it.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        try:
            with _quiet():
                importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f'ONNX needs {package} ({error}): pip install "ignite-salak[export]"'
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporters' progress, hints and deprecations off the terminal; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        sink = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(sink), redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
