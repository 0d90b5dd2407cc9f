"""Indexes without files."""

import numpy as np

from ignite_salak.data.patches import PatchIndex


def make_index(root, folders):
    """An index of {folder: {photo: "m-m"}}: one character a patch, "m" for one with a mask."""
    images, masks, folder_ids, source_ids, sources = [], [], [], [], []
    for folder_id, photos in enumerate(folders.values()):
        for photo, kinds in photos.items():
            sources.append((folder_id, photo))
            for number, kind in enumerate(kinds):
                name = f"{photo}_patch_000_{number:03d}.png"
                images.append(name)
                masks.append(name if kind == "m" else "")
                folder_ids.append(folder_id)
                source_ids.append(len(sources) - 1)
    return PatchIndex(
        root=root,
        folders=tuple(folders),
        image_folders=tuple(f"{folder}/images" for folder in folders),
        mask_folders=tuple(f"{folder}/masks" for folder in folders),
        sources=tuple(sources),
        images=np.asarray(images),
        masks=np.asarray(masks),
        folder_ids=np.asarray(folder_ids, dtype=np.int32),
        source_ids=np.asarray(source_ids, dtype=np.int32),
    )
