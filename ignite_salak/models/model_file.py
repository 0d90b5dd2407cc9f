"""A trained model in one file, with its architecture and its class list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ignite_salak.classes import ClassMap
from ignite_salak.files import read_tensors, write_whole
from ignite_salak.models.deeplabv2 import DeepLabV2
from ignite_salak.models.deeplabv3plus import DeepLabV3Plus
from ignite_salak.models.encoders import build_encoder

__all__ = ["ARCHITECTURES", "ModelSpec", "SavedModel", "load_model", "save_model"]

ARCHITECTURES = ("deeplabv3plus", "deeplabv2")
"""Networks that ``ModelSpec`` knows."""


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network.

    Attributes:
        num_classes: classes, the background included.
        backbone: name for ``build_encoder``.
        num_heads: voting heads; one in "deeplabv2".
        output_stride: stride of the encoder's last features, 8 or 16.
        decoder_channels: width of ASPP and decoder, of which "deeplabv2" has none.
        architecture: one of ``ARCHITECTURES``.
        aspp_rates: dilations of the pyramid; none for those that go with architecture and stride.

    Raises:
        ValueError: the architecture is unknown, or cannot have so many heads.
    """

    num_classes: int
    backbone: str = "resnet50"
    num_heads: int = 3
    output_stride: int = 16
    decoder_channels: int = 256
    architecture: str = "deeplabv3plus"
    aspp_rates: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"unknown architecture {self.architecture!r}; possible are "
                f"{', '.join(ARCHITECTURES)}"
            )
        if self.architecture == "deeplabv2" and self.num_heads != 1:
            raise ValueError(f"number of heads {self.num_heads}: deeplabv2 has one")

    def build(self, *, pretrained: bool = False, weights_file: Path | None = None) -> Any:
        """Builds the network; see ``build_encoder`` for the encoder's weights and the errors.

        Returns:
            A module that gives logits [N, B, C, H, W] for images [B, 3, H, W] in 0-1, and has
            ``parameter_groups``.
        """
        encoder = build_encoder(
            self.backbone,
            output_stride=self.output_stride,
            pretrained=pretrained,
            weights_file=weights_file,
        )
        rates = self.aspp_rates or None
        if self.architecture == "deeplabv2":
            return DeepLabV2(encoder, self.num_classes, aspp_rates=rates)
        return DeepLabV3Plus(
            encoder,
            self.num_classes,
            num_heads=self.num_heads,
            decoder_channels=self.decoder_channels,
            aspp_rates=rates,
        )


@dataclass(frozen=True)
class SavedModel:
    """What ``load_model`` returns.

    Attributes:
        model: the network in evaluation mode.
        spec: its architecture.
        classes: its class list.
        facts: whatever else was saved, such as "iteration", "scores" and "input_size".
    """

    model: nn.Module
    spec: ModelSpec
    classes: ClassMap
    facts: dict[str, Any]


def save_model(
    path: Path, model: nn.Module, spec: ModelSpec, classes: ClassMap, facts: Mapping[str, Any]
) -> None:
    """Writes a model file, whole or not at all.

    Args:
        path: the file, such as ``best_model_ema.pth``.
        model: built from ``spec``.
        spec: its architecture.
        classes: its class list.
        facts: plain values that travel with it.

    Raises:
        OSError: the file cannot be written.
    """
    content = {
        "weights": model.state_dict(),
        "spec": asdict(spec),
        "classes": classes.to_dict(),
        "facts": dict(facts),
    }
    write_whole(path, lambda file: torch.save(content, file))


def load_model(path: Path, device: torch.device | str = "cpu") -> SavedModel:
    """Reads a model file; nothing but the file is needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no model file.
    """
    content = read_tensors(path, device)
    if not {"weights", "spec", "classes", "facts"} <= content.keys():
        raise ValueError(
            f"{path} is no model file of ignite_salak (a checkpoint of a run, perhaps)"
        )
    try:
        spec = ModelSpec(**content["spec"])
        model = spec.build().to(device).eval()
        model.load_state_dict(content["weights"])
        classes = ClassMap.from_dict(content["classes"])
        return SavedModel(model, spec, classes, dict(content["facts"]))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is no model file of ignite_salak: {reason}") from error
