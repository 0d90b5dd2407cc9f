"""A torch Dataset over a patch index: decoded patches, no augmentation, no device."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ignite_salak.classes import IGNORE_INDEX
from ignite_salak.data.decoding import BadFileError, MaskReader, read_image
from ignite_salak.data.patches import PatchIndex

if TYPE_CHECKING:
    from ignite_salak.data.patch_cache import PatchCache

__all__ = ["PatchDataset", "collate"]

_SMALLEST_INPUT = 16


class PatchDataset(Dataset[dict[str, Any]]):
    """Reads patches, with their masks where a mask reader is given.

    An item is ``{"image": uint8 [3, H, W], "mask": uint8 [H, W]}``, without "mask" where no reader
    is given. A file that cannot be used does not raise in the worker, where the message would drown
    in two tracebacks: the item then holds "bad_file", the reason, and is either otherwise empty or,
    with ``skip_bad_files``, the next usable patch.

    Args:
        index: all patches.
        patches: the patches of this data set, integer [N].
        mask_reader: how masks are read, or None to read images only.
        input_size: length in pixels that the longer side is resized to (images with
            antialiasing, masks to the nearest), or None to keep the size of the file.
        skip_bad_files: put the next usable patch in the place of a bad one.
        cache: what keeps decoded patches; None decodes at every reading.

    Raises:
        ValueError: ``input_size`` is under 16, at which nothing can be seen, or the cache is one of
            other patches.
    """

    def __init__(
        self,
        index: PatchIndex,
        patches: np.ndarray,
        mask_reader: MaskReader | None = None,
        *,
        input_size: int | None = None,
        skip_bad_files: bool = False,
        cache: PatchCache | None = None,
    ) -> None:
        if input_size is not None and input_size < _SMALLEST_INPUT:
            raise ValueError(f"--input-size {input_size} is not at least {_SMALLEST_INPUT}")
        self.index = index
        self.patches = patches
        self.mask_reader = mask_reader
        self.input_size = input_size
        self.skip_bad_files = skip_bad_files
        self.cache = cache
        if cache is not None:
            cache.check(index, mask_reader, input_size)

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, position: int) -> dict[str, Any]:
        try:
            return self._read(int(self.patches[position]))
        except BadFileError as error:
            if not self.skip_bad_files:
                return {"bad_file": str(error)}
            first = str(error)
        for step in range(1, len(self)):
            try:
                item = self._read(int(self.patches[(position + step) % len(self)]))
            except BadFileError:
                continue
            return {**item, "bad_file": first}
        return {"bad_file": f"{first} (and no other patch can be read)"}

    def _read(self, patch: int) -> dict[str, Any]:
        decode = functools.partial(self._decode, patch)
        if self.cache is None:
            return decode()
        return self.cache.item(patch, self.mask_reader is not None, decode)

    def _decode(self, patch: int) -> dict[str, Any]:
        path = self.index.image_path(patch)
        image = Image.fromarray(read_image(path))
        size = self._target_size(image)
        pixels = np.array(image.resize(size, Image.Resampling.BILINEAR) if size else image)
        item = {"image": torch.from_numpy(pixels).permute(2, 0, 1).contiguous()}
        if self.mask_reader is not None:
            mask_path = self.index.mask_path(patch)
            labels, _ = self.mask_reader.read(mask_path)
            if labels.shape != (image.height, image.width):
                raise BadFileError(f"{mask_path}: its size differs from that of {path}")
            mask = Image.fromarray(labels)
            pixels = np.array(mask.resize(size, Image.Resampling.NEAREST) if size else mask)
            item["mask"] = torch.from_numpy(pixels)
        return item

    def _target_size(self, image: Image.Image) -> tuple[int, int] | None:
        longest = max(image.width, image.height)
        if self.input_size is None or longest == self.input_size:
            return None
        factor = self.input_size / longest
        return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks patches; smaller ones are padded with black below and to the right, masks with 255.

    Args:
        items: items of a ``PatchDataset``.

    Returns:
        ``{"image": uint8 [B, 3, H, W], "mask": uint8 [B, H, W], "bad_files": [reason, ...]}``;
        "image" and "mask" are absent where an item has none.
    """
    batch: dict[str, Any] = {
        "bad_files": [item["bad_file"] for item in items if "bad_file" in item]
    }
    if all("image" in item for item in items):
        height = max(item["image"].shape[-2] for item in items)
        width = max(item["image"].shape[-1] for item in items)
        for key, value in (("image", 0), ("mask", IGNORE_INDEX)):
            if key in items[0]:
                batch[key] = torch.stack([_pad(item[key], height, width, value) for item in items])
    return batch


def _pad(tensor: Tensor, height: int, width: int, value: int) -> Tensor:
    right, below = width - tensor.shape[-1], height - tensor.shape[-2]
    return functional.pad(tensor, (0, right, 0, below), value=value) if right or below else tensor
